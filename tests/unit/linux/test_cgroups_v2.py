"""cgroup v2 on a fake tree, and runc's conversions from v1 values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cgroup_trees
import pytest
from cgroup_trees import FakeTree
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import InvalidArgumentError
from cais.linux.cgroups import UnsupportedLimitError, devices_v2, open_cgroup
from cais.linux.cgroups.resources_v2 import blkio_to_io_weight, shares_to_weight, swap_alone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTree]:
    monkeypatch.setattr(devices_v2, "apply", lambda *_: None)
    yield from cgroup_trees.patched(cgroup_trees.v2_tree(tmp_path), monkeypatch)


def writes_of(tree: FakeTree, **resources: object) -> list[tuple[str, str]]:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    tree.writes.clear()
    group.apply(resources)  # type: ignore[arg-type]
    return tree.writes


def test_create_hands_controllers_down(tree: FakeTree) -> None:
    open_cgroup(tree.hierarchy, "/cais/x").create({})
    line = "+cpuset +cpu +io +memory +pids"
    assert tree.writes == [("cgroup.subtree_control", line)] * 2
    assert (tree.root / "unified/cais/cgroup.subtree_control").read_text() == line
    assert (tree.root / "unified/cais/x/cgroup.subtree_control").read_text() == ""


def test_controllers_already_there_are_not_touched(tree: FakeTree) -> None:
    (tree.root / "unified/cgroup.subtree_control").write_text("memory pids cpu io cpuset")
    open_cgroup(tree.hierarchy, "/x").create({})
    assert tree.writes == []


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 64}}, [("memory.max", "64")]),
        ({"memory": {"limit": 64, "swap": 64}}, [("memory.swap.max", "0"), ("memory.max", "64")]),
        ({"memory": {"limit": 64, "swap": 100}}, [("memory.swap.max", "36"), ("memory.max", "64")]),
        ({"memory": {"limit": 64, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", "64")]),
        ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"memory": {"reservation": 5}}, [("memory.low", "5")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "100")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"quota": 50000, "period": 100000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": 50000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": -1, "period": 5}}, [("cpu.max", "max 5")]),
        ({"cpu": {"period": 2000}}, [("cpu.max", "max 2000")]),
        ({"cpu": {"burst": 3}}, [("cpu.max.burst", "3")]),
        ({"cpu": {"cpus": "0", "mems": "0"}}, [("cpuset.cpus", "0"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": 7}}, [("pids.max", "7")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"blockIO": {"weight": 1000}}, [("io.weight", "10000")]),
        (
            {"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 9}]}},
            [("io.max", "8:1 wbps=9")],
        ),
        (
            {"blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]}},
            [("io.max", "8:1 riops=max")],
        ),
        ({"unified": {"memory.low": "10"}}, [("memory.low", "10")]),
        ({"memory": {"kernel": 5, "limit": 0}, "cpu": {"shares": 0, "quota": 0}}, []),
    ],
)
def test_values(tree: FakeTree, resources: dict[str, object], expected: object) -> None:
    assert writes_of(tree, **resources) == expected


def test_a_missing_half_of_the_bandwidth_stays(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({"cpu": {"quota": 30000, "period": 60000}})
    group.apply({"cpu": {"period": 90000}})
    group.apply({"cpu": {"quota": 45000}})
    assert tree.writes[-2:] == [("cpu.max", "30000 90000"), ("cpu.max", "45000 90000")]


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"cpu": {"realtimeRuntime": 1}}, "real-time"),
        ({"memory": {"disableOOMKiller": True}}, "OOM killer"),
        ({"memory": {"limit": 1, "swappiness": 0}}, "memory swappiness"),
        ({"network": {"classID": 1}}, "cgroup v2"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, r"no hugetlb\.2MB\.max"),
        ({"unified": {"cpu.pressure.max": "1"}}, "the cpu controller is not available"),
    ],
)
def test_what_v2_does_not_have(tree: FakeTree, resources: dict[str, object], text: str) -> None:
    with pytest.raises(UnsupportedLimitError, match=text):
        writes_of(tree, **resources)


@pytest.mark.parametrize("name", ["../../memory.max", "a/b", "..", ""])
def test_unified_names_are_file_names(tree: FakeTree, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a file name"):
        writes_of(tree, unified={name: "1"})


@pytest.mark.parametrize(
    ("memory", "refused"),
    [
        ({"limit": 98}, "rejecting memory limit 98 <= usage 99"),
        ({"limit": 99}, "rejecting memory limit 99 <= usage 99"),
        ({"limit": 98, "swap": -1}, "rejecting memory limit 98 <= usage 99"),
        ({"limit": 50, "swap": 99}, r"rejecting memory\+swap limit 99 <= usage 99"),
        ({"limit": 100}, ""),
        ({"limit": 100, "swap": 100}, ""),
        ({"limit": -1}, ""),
        ({"reservation": 5}, ""),
    ],
)
def test_usage_is_checked_before_a_limit_is_set(
    tree: FakeTree, memory: dict[str, object], refused: str
) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({"memory": {"limit": 5, "checkBeforeUpdate": True}})  # nothing is used yet
    (tree.root / "unified/cais/x/memory.current").write_text("99\n")
    tree.writes.clear()
    if refused:
        with pytest.raises(InvalidArgumentError, match=refused):
            group.apply({"memory": {**memory, "checkBeforeUpdate": True}, "pids": {"limit": 7}})
        assert tree.writes == []
    else:
        group.apply({"memory": {**memory, "checkBeforeUpdate": True}})
        assert tree.writes
    group.apply({"memory": {**memory, "checkBeforeUpdate": False}})  # the kernel kills


def test_a_failed_create_leaves_no_group(tree: FakeTree) -> None:
    with pytest.raises(InvalidArgumentError):
        open_cgroup(tree.hierarchy, "/cais/x").create({"memory": {"swap": 5}})
    assert not (tree.root / "unified/cais/x").exists()
    assert (tree.root / "unified/cais").exists()


def test_a_failed_create_leaves_a_group_that_was_there(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    with pytest.raises(InvalidArgumentError):
        group.create({"memory": {"swap": 5}})
    assert group.exists()


def test_counters(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    directory = tree.root / "unified/cais/x"
    (directory / "io.stat").write_text("8:0 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0\n")
    (directory / "cpu.stat").write_text(
        "usage_usec 7\nuser_usec 4\nsystem_usec 3\nthrottled_usec 1\n"
    )
    (directory / "memory.current").write_text("99\n")
    assert group.oom_kills() == 2
    stats = group.stats()
    assert stats["memory"]["usage"] == 99
    assert stats["memory"]["failcnt"] == 4
    assert stats["cpu"]["total_ns"] == 7000
    assert stats["cpu"]["throttled_ns"] == 1000
    assert [entry["value"] for entry in stats["blkio"]["service_bytes"]] == [4096, 1]
    assert [entry["op"] for entry in stats["blkio"]["serviced"]] == ["read", "write"]


def test_frozen_is_what_the_kernel_says(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    assert not group.is_frozen()
    (tree.root / "unified/cais/x/cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert group.is_frozen()


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (10**9, 10_000)]
)
def test_shares_meet_the_default(shares: int, weight: int) -> None:
    assert shares_to_weight(shares) == weight


@given(st.integers(2, 262_144), st.integers(2, 262_144))
def test_more_shares_never_weigh_less(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert 1 <= shares_to_weight(low) <= shares_to_weight(high) <= 10_000


@pytest.mark.parametrize(("weight", "io"), [(0, 0), (10, 1), (500, 4950), (1000, 10_000)])
def test_block_weights(weight: int, io: int) -> None:
    assert blkio_to_io_weight(weight) == io


def test_swap_is_the_sum_without_memory() -> None:
    assert [swap_alone(64, swap) for swap in (0, -1, 64, 100)] == [0, -1, 0, 36]
    for limit in (0, -1):
        with pytest.raises(InvalidArgumentError, match="without memory limit"):
            swap_alone(limit, 100)
    with pytest.raises(InvalidArgumentError, match=">= memory limit"):
        swap_alone(100, 64)
