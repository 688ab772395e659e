"""OCI resources, written for cgroup v1, as writes to cgroup v2 files.

Spec: OCI runtime-spec 1.2, config-linux.md; kernel Documentation/admin-guide/cgroup-v2.rst. The
conversions are runc's, so that a limit means the same under either runtime.
"""

from __future__ import annotations

import errno
import math
import os

from cais.errors import InvalidArgumentError
from cais.linux.cgroups import files
from cais.linux.cgroups.files import CgroupError, UnsupportedLimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.spec.runtime import BlockIo, CpuLimits, MemoryLimits, Resources

DEFAULT_PERIOD_US = 100_000
MIN_SHARES, MAX_SHARES = 2, 262_144
_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def apply(directory: str, resources: Resources) -> None:
    """Set every limit that ``resources`` names; devices are not among them.

    Limits set before a failing one stay set.

    Raises:
        UnsupportedLimitError: no such controller or file on this host.
        InvalidArgumentError: values that contradict each other; or more memory is used than shall
            be allowed, and that shall be checked.
        CgroupError: the kernel refused a value.

    """
    for name, value, limit in writes(directory, resources):
        _set(directory, name, value, limit)
    for name, value in resources.get("unified", {}).items():
        if "/" in name or name in ("", ".", ".."):
            raise InvalidArgumentError(f"unified resource {name[:64]!r} must be a file name")
        _set(directory, name, value, f"unified resource {name!r}")


def writes(directory: str, resources: Resources) -> Iterator[tuple[str, str, str]]:
    """Yield file, value and the limit's name, in the order to write them."""
    network = resources.get("network", {})
    if network.get("classID") or network.get("priorities"):
        raise UnsupportedLimitError("network class or priorities", "this host has cgroup v2")
    yield from _memory(directory, resources.get("memory", {}))
    yield from _cpu(directory, resources.get("cpu", {}))
    if "pids" in resources:
        limit = resources["pids"]["limit"]
        yield "pids.max", str(limit) if limit > 0 else "max", "pids limit"
    yield from _block_io(directory, resources.get("blockIO", {}))
    for page in resources.get("hugepageLimits", []):
        name = f"hugetlb.{page['pageSize']}"
        yield f"{name}.max", str(page["limit"]), "hugepage limits"
        if os.path.exists(f"{directory}/{name}.rsvd.max"):
            yield f"{name}.rsvd.max", str(page["limit"]), "hugepage limits"
    for device, limits in resources.get("rdma", {}).items():
        handles, objects = limits.get("hcaHandles", "max"), limits.get("hcaObjects", "max")
        yield "rdma.max", f"{device} hca_handle={handles} hca_object={objects}", "rdma limits"


def shares_to_weight(shares: int) -> int:
    """Map v1 ``cpu.shares`` 2..262144 to ``cpu.weight`` 1..10000 so that 1024 becomes 100.

    A quadratic in log2 through minimum, default and maximum; 0 stays 0, meaning unset.
    """
    if shares == 0:
        return 0
    if shares <= MIN_SHARES:
        return 1
    if shares >= MAX_SHARES:
        return 10_000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def blkio_to_io_weight(weight: int) -> int:
    """Map v1 ``blkio.weight`` 10..1000 to ``io.weight`` 1..10000; 0 stays 0, meaning unset."""
    return 1 + (weight - 10) * 9999 // 990 if weight else 0


def swap_alone(limit: int, swap: int) -> int:
    """Return the v2 swap limit for v1's sum of memory and swap; -1 is no limit, 0 is unset.

    Raises:
        InvalidArgumentError: a sum without, or smaller than, the memory limit.

    """
    if swap in (0, -1):
        return swap
    if limit in (0, -1):
        raise InvalidArgumentError("unable to set swap limit without memory limit")
    if swap < limit:
        raise InvalidArgumentError("memory+swap limit should be >= memory limit")
    return swap - limit


def _memory(directory: str, memory: MemoryLimits) -> Iterator[tuple[str, str, str]]:
    if memory.get("disableOOMKiller"):
        raise UnsupportedLimitError("OOM killer switch", "cgroup v2 has none")
    if memory.get("swappiness") is not None:
        raise UnsupportedLimitError("memory swappiness", "cgroup v2 has none")
    if memory.get("checkBeforeUpdate"):
        _check_usage(directory, memory)
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if swap > 0 and swap == limit:
        yield "memory.swap.max", "0", "swap limit"
    elif alone := swap_alone(limit, -1 if limit == -1 and swap == 0 else swap):
        yield "memory.swap.max", _number(alone), "swap limit"
    if limit:
        yield "memory.max", _number(limit), "memory limit"
    if reservation := memory.get("reservation", 0):
        yield "memory.low", _number(reservation), "memory reservation"


def _check_usage(directory: str, memory: MemoryLimits) -> None:
    """Refuse what version 1's kernel refuses, and version 2's answers by killing."""
    usage = files.find_number(f"{directory}/memory.current")
    for what, value in (("memory+swap", memory.get("swap", 0)), ("memory", memory.get("limit", 0))):
        if usage is not None and 0 < value <= usage:
            raise InvalidArgumentError(f"rejecting {what} limit {value} <= usage {usage}")


def _cpu(directory: str, cpu: CpuLimits) -> Iterator[tuple[str, str, str]]:
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise UnsupportedLimitError("cpu real-time limits", "cgroup v2 has none")
    if "idle" in cpu:
        yield "cpu.idle", str(cpu["idle"]), "cpu idle"
    if (shares := cpu.get("shares", 0)) and cpu.get("idle") != 1:
        yield "cpu.weight", str(shares_to_weight(shares)), "cpu shares"
    if cpu.get("quota") or cpu.get("period"):
        yield "cpu.max", _bandwidth(directory, cpu), "cpu bandwidth"
    if "burst" in cpu:
        yield "cpu.max.burst", str(cpu["burst"]), "cpu burst"
    for key, value in (("cpus", cpu.get("cpus")), ("mems", cpu.get("mems"))):
        if value:
            yield f"cpuset.{key}", value, f"cpuset {key}"


def _bandwidth(directory: str, cpu: CpuLimits) -> str:
    """Return quota and period; what the document leaves out stays as it is."""
    present = (files.find_text(f"{directory}/cpu.max") or "max").split()
    quota = cpu.get("quota", 0)
    written = present[0] if quota == 0 else _number(max(quota, -1))
    period = cpu.get("period", 0) or int(present[1] if len(present) > 1 else DEFAULT_PERIOD_US)
    return f"{written} {period}"


def _block_io(directory: str, block: BlockIo) -> Iterator[tuple[str, str, str]]:
    has_bfq = os.path.exists(f"{directory}/io.bfq.weight")
    if weight := block.get("weight", 0):
        if has_bfq:
            yield "io.bfq.weight", str(weight), "blkio weight"
        else:
            yield "io.weight", str(blkio_to_io_weight(weight)), "blkio weight"
    if block.get("leafWeight"):
        raise UnsupportedLimitError("blkio leaf weight", "cgroup v2 has none")
    for device in block.get("weightDevice", []):
        number, weight = f"{device['major']}:{device['minor']}", device.get("weight", 0)
        if has_bfq:
            yield "io.bfq.weight", f"{number} {weight}", "blkio weight of a device"
        else:
            line = f"{number} {blkio_to_io_weight(weight)}"
            yield "io.weight", line, "blkio weight of a device"
    for key, word in _THROTTLES:
        for throttle in block.get(key, []):  # type: ignore[attr-defined]
            rate = throttle.get("rate", 0) or "max"
            line = f"{throttle['major']}:{throttle['minor']} {word}={rate}"
            yield "io.max", line, "blkio throttle"


def _number(value: int) -> str:
    return "max" if value == -1 else str(value)


def _set(directory: str, name: str, value: str, limit: str) -> None:
    try:
        files.write(f"{directory}/{name}", value)
    except CgroupError as exc:
        if exc.errno == errno.ENOENT and exc.step == "open" and os.path.isdir(directory):
            controller = name.partition(".")[0]
            reason = f"no {name}: the {controller} controller is not available here"
            raise UnsupportedLimitError(limit, reason) from exc
        raise
