"""What an update leaves, changes and refuses."""

import pytest

from cais.engine.updating import merge_update
from cais.errors import ConflictError
from cais.spec.container import HostConfig, RestartPolicy, UpdateBody

MIB = 1024 * 1024
LIMITED = HostConfig(memory=64 * MIB, memory_swap=128 * MIB, cpu_shares=7, pids_limit=5)


def test_what_is_not_given_stays() -> None:
    changed = merge_update(LIMITED, UpdateBody(cpu_shares=9, restart_policy=RestartPolicy()))
    assert (changed.cpu_shares, changed.memory, changed.pids_limit) == (9, 64 * MIB, 5)
    assert changed.restart_policy == LIMITED.restart_policy


def test_zero_takes_the_limit_of_processes_away() -> None:
    assert merge_update(LIMITED, UpdateBody(pids_limit=0)).pids_limit == 0


@pytest.mark.parametrize("memory_swap", [0, 128 * MIB])
def test_memory_above_the_swap_limit_is_refused(memory_swap: int) -> None:
    has = HostConfig(memory_swap=memory_swap)
    with pytest.raises(ConflictError, match="Memory limit should be smaller than already set"):
        merge_update(has, UpdateBody(memory=200 * MIB))
    assert merge_update(has, UpdateBody(memory=200 * MIB, memory_swap=-1)).memory == 200 * MIB


def test_memory_below_unlimited_swap() -> None:
    assert merge_update(HostConfig(memory_swap=-1), UpdateBody(memory=MIB)).memory == MIB


@pytest.mark.parametrize(
    ("has", "asked", "text"),
    [
        (HostConfig(cpu_period=1000), UpdateBody(nano_cpus=1), "Nano CPUs .* CPU Period"),
        (HostConfig(cpu_quota=1000), UpdateBody(nano_cpus=1), "Nano CPUs .* CPU Quota"),
        (HostConfig(nano_cpus=1), UpdateBody(cpu_period=1000), "CPU Period .* NanoCPUs"),
        (HostConfig(nano_cpus=1), UpdateBody(cpu_quota=1000), "CPU Quota .* NanoCPUs"),
    ],
)
def test_one_way_of_limiting_processors(has: HostConfig, asked: UpdateBody, text: str) -> None:
    with pytest.raises(ConflictError, match=f"Conflicting options: {text} has already been set"):
        merge_update(has, asked)
