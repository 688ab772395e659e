"""What ``docker update`` makes of a container's limits, and which changes contradict them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cais.errors import ConflictError

if TYPE_CHECKING:
    from cais.spec.container import HostConfig, UpdateBody


def merge_update(host_config: HostConfig, body: UpdateBody) -> HostConfig:
    """Return the HostConfig with what an update gives; zero and None leave things as they are.

    Only of the number of processes zero says something: no limit.

    Raises:
        ConflictError: Docker's text for what contradicts a limit the container has.

    """
    _check_cpu(host_config, body)
    _check_memory(host_config, body)
    given = {
        name: value
        for name in body.__struct_fields__
        if (value := getattr(body, name)) not in (0, None, "", [])
    }
    if body.pids_limit is not None:
        given["pids_limit"] = body.pids_limit
    policy = given.pop("restart_policy", None)
    if policy is not None and policy.name:
        given["restart_policy"] = policy
    return replace(host_config, **given)


def _check_memory(has: HostConfig, asked: UpdateBody) -> None:
    if not asked.memory_swap and has.memory_swap != -1 and asked.memory > has.memory_swap:
        raise ConflictError(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )


def _check_cpu(has: HostConfig, asked: UpdateBody) -> None:
    """One processor limit in billionths is a period and a quota: not both."""
    conflicts = (
        (asked.nano_cpus > 0 and has.cpu_period > 0, "Nano CPUs", "CPU Period"),
        (asked.nano_cpus > 0 and has.cpu_quota > 0, "Nano CPUs", "CPU Quota"),
        (asked.cpu_period > 0 and has.nano_cpus > 0, "CPU Period", "NanoCPUs"),
        (asked.cpu_quota > 0 and has.nano_cpus > 0, "CPU Quota", "NanoCPUs"),
    )
    for is_conflict, wanted, present in conflicts:
        if is_conflict:
            raise ConflictError(
                f"Conflicting options: {wanted} cannot be updated as {present} has already been set"
            )
