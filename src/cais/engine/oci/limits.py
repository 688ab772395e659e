"""Docker's checks of limits: what contradicts itself is refused, what the host lacks is discarded.

Spec: the texts and their order are those of Docker's daemon; docker CLI tests and people's
searches know them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from cais.engine.oci.lists import InvalidListError, parse_numbers
from cais.errors import InvalidArgumentError
from cais.linux import rlimits

if TYPE_CHECKING:
    from cais.engine.oci.host import Host
    from cais.linux.cgroups.features import Features
    from cais.spec.container import Resources

T = TypeVar("T", bound="Resources")
Changes = dict[str, Any]

MINIMUM_MEMORY_BYTES = 6 * 1024 * 1024
MIN_SHARES, MAX_SHARES = 2, 262_144
_NO_CGROUP = "or the cgroup is not mounted."
_BLOCK_IO_DEVICES = (
    (
        *("blkio_weight_device", "blkio_weight_device"),
        *("Block I/O weight_device", "Weight-device discarded."),
    ),
    (
        *("blkio_device_read_bps", "blkio_read_bps"),
        *("BPS Block I/O read limit", "Block I/O BPS read limit discarded."),
    ),
    (
        *("blkio_device_write_bps", "blkio_write_bps"),
        *("BPS Block I/O write limit", "Block I/O BPS write limit discarded."),
    ),
    (
        *("blkio_device_read_iops", "blkio_read_iops"),
        *("IOPS Block read limit", "Block I/O IOPS read limit discarded."),
    ),
    (
        *("blkio_device_write_iops", "blkio_write_iops"),
        *("IOPS Block write limit", "Block I/O IOPS write limit discarded."),
    ),
)
"""Field of the request, feature it needs, what it is, and what is said where it is missing."""


def adapt(resources: T, host: Host, *, is_update: bool = False) -> tuple[T, list[str]]:
    """Return the limits that can be set here, and what was discarded.

    Raises:
        InvalidArgumentError: Docker's text.

    """
    warnings: list[str] = []
    resources = replace(resources, **_memory(resources, host, warnings, is_update=is_update))
    resources = replace(resources, **_pids(resources, host, warnings, is_update=is_update))
    for step in (_memory_extras, _cpu, _cpuset, _block_io):
        resources = replace(resources, **step(resources, host, warnings))
    _ulimits(resources)
    return resources, warnings


def _memory(resources: Resources, host: Host, warnings: list[str], *, is_update: bool) -> Changes:
    features, memory, swap = host.features, resources.memory, resources.memory_swap
    if memory > 0 and swap == 0 and not is_update:
        swap = min(memory * 2, 2**63 - 1)
    if memory != 0 and memory < MINIMUM_MEMORY_BYTES:
        raise InvalidArgumentError("Minimum memory limit allowed is 6MB")
    if memory > 0 and not features.memory_limit:
        warnings.append(_discarded("memory limit", "Limitation discarded."))
        memory, swap = 0, -1
    if memory > 0 and swap != -1 and not features.swap_limit:
        warnings.append(_discarded("swap limit", "Memory limited without swap."))
        swap = -1
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgumentError(
            "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if memory == 0 and swap > 0 and not is_update:
        raise InvalidArgumentError(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    return {"memory": memory, "memory_swap": swap}


def _memory_extras(resources: Resources, host: Host, warnings: list[str]) -> Changes:
    features = host.features
    return {
        "memory_swappiness": _swappiness(resources, features, warnings),
        "memory_reservation": _reservation(resources, features, warnings),
        "kernel_memory": _kernel_memory(resources, features, warnings),
        "oom_kill_disable": _oom_kill_disable(resources, features, warnings),
    }


def _swappiness(resources: Resources, features: Features, warnings: list[str]) -> int | None:
    value = resources.memory_swappiness
    if value is None or value == -1:  # the CLI's way of saying that it was not given
        return None
    if not features.memory_swappiness:
        warnings.append(_discarded("memory swappiness", "Memory swappiness discarded."))
        return None
    if not 0 <= value <= 100:
        raise InvalidArgumentError(
            f"Invalid value: {value}, valid memory swappiness range is 0-100"
        )
    return value


def _reservation(resources: Resources, features: Features, warnings: list[str]) -> int:
    value = resources.memory_reservation
    if value > 0 and not features.memory_reservation:
        warnings.append(_discarded("memory soft limit", "Limitation discarded."))
        return 0
    if 0 < value < MINIMUM_MEMORY_BYTES:
        raise InvalidArgumentError("Minimum memory reservation allowed is 6MB")
    if 0 < resources.memory < value:
        raise InvalidArgumentError(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    return value


def _kernel_memory(resources: Resources, features: Features, warnings: list[str]) -> int:
    if resources.kernel_memory > 0 and not features.kernel_memory:
        warnings.append(_discarded("kernel memory limit", "Limitation discarded."))
        return 0
    return resources.kernel_memory


def _oom_kill_disable(resources: Resources, features: Features, warnings: list[str]) -> bool | None:
    value = resources.oom_kill_disable
    if value and not features.oom_kill_disable:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        return None
    if value and resources.memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return value


def _pids(resources: Resources, host: Host, warnings: list[str], *, is_update: bool) -> Changes:
    """Zero and below mean no limit: None at creation; 0 in an update, which takes one away."""
    value = resources.pids_limit
    if value is not None and value <= 0:
        return {"pids_limit": 0 if is_update and host.features.pids_limit else None}
    if value is not None and not host.features.pids_limit:
        warnings.append(_discarded("PIDs limit", "PIDs limit discarded."))
        value = None
    return {"pids_limit": value}


def _cpu(resources: Resources, host: Host, warnings: list[str]) -> Changes:
    _check_cpu(resources, host)
    changes: Changes = {"cpu_shares": _shares(resources, host.features, warnings)}
    if (resources.cpu_period or resources.cpu_quota) and not host.features.cpu_cfs_quota:
        warnings.append(
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
        )
        changes |= {"cpu_period": 0, "cpu_quota": 0}
    elif resources.cpu_period and not 1000 <= resources.cpu_period <= 1_000_000:
        raise InvalidArgumentError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    elif 0 < resources.cpu_quota < 1000:
        raise InvalidArgumentError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if resources.cpu_percent > 0:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        changes["cpu_percent"] = 0
    return changes


def _check_cpu(resources: Resources, host: Host) -> None:
    nano, cpus = resources.nano_cpus, host.cpus
    if nano > 0 and resources.cpu_period > 0:
        raise InvalidArgumentError(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set"
        )
    if nano > 0 and resources.cpu_quota > 0:
        raise InvalidArgumentError(
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
        )
    if nano > 0 and not host.features.cpu_cfs_quota:
        raise InvalidArgumentError(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler "
            "or the cgroup is not mounted"
        )
    if nano < 0 or nano > cpus * 10**9:
        raise InvalidArgumentError(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    period, runtime = resources.cpu_realtime_period, resources.cpu_realtime_runtime
    if (period or runtime) and not host.features.cpu_realtime:
        raise InvalidArgumentError("kernel does not support CPU real-time scheduler")
    if period and runtime > period:
        raise InvalidArgumentError(
            "cpu real-time runtime cannot be higher than cpu real-time period"
        )


def _shares(resources: Resources, features: Features, warnings: list[str]) -> int:
    shares = resources.cpu_shares
    if shares < 0:
        raise InvalidArgumentError(
            f"invalid CPU shares ({shares}): value must be a positive integer"
        )
    if shares > 0 and not features.cpu_shares:
        warnings.append(f"Your kernel does not support CPU shares {_NO_CGROUP} Shares discarded.")
        return 0
    return min(max(shares, MIN_SHARES), MAX_SHARES) if shares else 0


def _cpuset(resources: Resources, host: Host, warnings: list[str]) -> Changes:
    if not (resources.cpuset_cpus or resources.cpuset_mems):
        return {}
    if not host.features.cpuset:
        warnings.append(f"Your kernel does not support cpuset {_NO_CGROUP} Cpuset discarded.")
        return {"cpuset_cpus": "", "cpuset_mems": ""}
    features = host.features
    _check_set(resources.cpuset_cpus, features.cpuset_cpus, "cpuset cpus", "CPUs")
    _check_set(resources.cpuset_mems, features.cpuset_mems, "cpuset mems", "memory nodes")
    return {}


def _check_set(asked: str, present: str, field: str, things: str) -> None:
    try:
        wanted = parse_numbers(asked)
    except InvalidListError as exc:
        raise InvalidArgumentError(f"Invalid value {asked[:128]} for {field}: {exc}") from exc
    if not wanted <= parse_numbers(present):
        raise InvalidArgumentError(
            f"Requested {things} are not available - requested {asked[:128]}, available: {present}"
        )


def _block_io(resources: Resources, host: Host, warnings: list[str]) -> Changes:
    for kind, value in (
        ("bandwidth", resources.io_maximum_bandwidth),
        ("IOPs", resources.io_maximum_iops),
    ):
        if value:
            raise InvalidArgumentError(
                f"invalid option: QoS maximum {kind} configuration is not supported on linux"
            )
    changes = _block_io_weight(resources, host, warnings)
    for field, feature, what, consequence in _BLOCK_IO_DEVICES:
        if getattr(resources, field) and not getattr(host.features, feature):
            warnings.append(f"Your kernel does not support {what} {_NO_CGROUP} {consequence}")
            changes[field] = []
    return changes


def _block_io_weight(resources: Resources, host: Host, warnings: list[str]) -> Changes:
    weight = resources.blkio_weight
    if weight and not host.features.blkio_weight:
        warnings.append(
            f"Your kernel does not support Block I/O weight {_NO_CGROUP} Weight discarded."
        )
        return {"blkio_weight": 0}
    if weight and not 10 <= weight <= 1000:
        raise InvalidArgumentError("Range of blkio weight is from 10 to 1000")
    return {}


def _ulimits(resources: Resources) -> None:
    for limit in resources.ulimits or ():
        if f"RLIMIT_{limit.name.upper()}" not in rlimits.NAMES:
            raise InvalidArgumentError(f"invalid ulimit type: {limit.name[:64]}")
        if limit.soft < -1 or limit.hard < -1:
            raise InvalidArgumentError(f"invalid ulimit {limit.name}: value must be -1 or more")
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise InvalidArgumentError(
                "ulimit soft limit must be less than or equal to hard limit: "
                f"{limit.soft} > {limit.hard}"
            )


def _discarded(what: str, consequence: str) -> str:
    return f"Your kernel does not support {what} capabilities {_NO_CGROUP} {consequence}"
