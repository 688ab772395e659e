"""OCI resources as writes to cgroup v1 files, in the order the kernel accepts.

Spec: OCI runtime-spec 1.2, config-linux.md; kernel Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import errno
import os

from cais.errors import InvalidArgumentError
from cais.linux.cgroups import files
from cais.linux.cgroups.files import CgroupError, UnsupportedLimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.spec.runtime import BlockIo, CpuLimits, MemoryLimits, Resources

DEFAULT_PERIOD_US = 100_000
_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def apply(directories: Mapping[str, str], resources: Resources) -> None:
    """Set every limit that ``resources`` names; devices are not among them.

    Limits set before a failing one stay set.

    Args:
        directories: the group's directory under each v1 controller.
        resources: as in ``config.json``.

    Raises:
        UnsupportedLimitError: no such controller or file on this host.
        InvalidArgumentError: values that contradict each other.
        CgroupError: the kernel refused a value.

    """
    if resources.get("unified"):
        raise UnsupportedLimitError("unified resources", "this host has cgroup v1")
    if resources.get("rdma"):
        _rdma(_directory(directories, "rdma", "rdma limits"), resources["rdma"])
    if memory := resources.get("memory"):
        set_memory(directories, memory)
    if cpu := resources.get("cpu"):
        set_cpu(directories, cpu)
        set_cpuset(directories, cpu)
    if "pids" in resources:
        set_pids(directories, resources["pids"]["limit"])
    if block := resources.get("blockIO"):
        set_block_io(directories, block)
    _set_hugepages(directories, resources)
    _set_network(directories, resources)


def set_memory(directories: Mapping[str, str], memory: MemoryLimits) -> None:
    """Limit, swap, reservation, swappiness and the OOM killer; the kernel-memory limit is ignored.

    ``kernel`` and ``kernelTCP`` have no effect since Linux 5.4 made them obsolete; Docker and
    runc ignore the first as well.
    """
    wanted = {key: value for key, value in memory.items() if key in _MEMORY_KEYS and value}
    if not wanted and memory.get("swappiness") is None:
        return
    directory = _directory(directories, "memory", "memory limits")
    _set_limit_and_swap(directory, memory.get("limit", 0), memory.get("swap", 0))
    if reservation := memory.get("reservation", 0):
        _set(directory, "memory.soft_limit_in_bytes", str(reservation), "memory reservation")
    if memory.get("disableOOMKiller"):
        _set(directory, "memory.oom_control", "1", "OOM killer switch")
    if (swappiness := memory.get("swappiness")) is not None:
        if swappiness > 100:
            raise InvalidArgumentError(
                f"invalid memory swappiness value: {swappiness} (valid range is 0-100)"
            )
        _set(directory, "memory.swappiness", str(swappiness), "memory swappiness")


_MEMORY_KEYS = ("limit", "swap", "reservation", "disableOOMKiller")


def _set_limit_and_swap(directory: str, limit: int, swap: int) -> None:
    """Write both in the order that never makes memory+swap smaller than memory."""
    accounts_swap = os.path.exists(f"{directory}/memory.memsw.limit_in_bytes")
    if limit == -1 and swap == 0 and accounts_swap:
        swap = -1  # memory without a limit leaves no meaning to a limit of the sum
    if swap > 0 and limit > swap:
        raise InvalidArgumentError("memory+swap limit should be >= memory limit")
    if swap == -1 and not accounts_swap:
        swap = 0
    steps = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
    if limit and swap:
        present = files.find_number(f"{directory}/memory.limit_in_bytes") or 0
        if swap == -1 or swap > present:
            steps.reverse()
    for name, value in steps:
        if value:
            _write_memory(directory, name, value)


def _write_memory(directory: str, name: str, value: int) -> None:
    try:
        _set(directory, name, str(value), "swap limit" if "memsw" in name else "memory limit")
    except CgroupError as exc:
        if exc.errno != errno.EBUSY:
            raise
        usage = files.find_number(f"{directory}/{name.replace('limit', 'usage')}")
        peak = files.find_number(f"{directory}/{name.replace('limit', 'max_usage')}")
        raise InvalidArgumentError(
            f"unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"
        ) from exc


def set_cpu(directories: Mapping[str, str], cpu: CpuLimits) -> None:
    """Shares, bandwidth, real-time bandwidth and idle scheduling."""
    numbers = {key: value for key, value in cpu.items() if key not in ("cpus", "mems") and value}
    if not numbers:
        return
    directory = _directory(directories, "cpu", "cpu limits")
    # Before any real-time process joins: the kernel refuses one into a group with no budget.
    if period := cpu.get("realtimePeriod", 0):
        _set(directory, "cpu.rt_period_us", str(period), "cpu real-time period")
    if runtime := cpu.get("realtimeRuntime", 0):
        _set(directory, "cpu.rt_runtime_us", str(runtime), "cpu real-time runtime")
    if shares := cpu.get("shares", 0):
        _set(directory, "cpu.shares", str(shares), "cpu shares")
    _set_bandwidth(directory, cpu)
    if "idle" in cpu:
        _set(directory, "cpu.idle", str(cpu["idle"]), "cpu idle")


def _set_bandwidth(directory: str, cpu: CpuLimits) -> None:
    period, quota, burst = cpu.get("period", 0), cpu.get("quota", 0), cpu.get("burst")
    steps = [("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota)]
    if quota and period:
        present = files.find_number(f"{directory}/cpu.cfs_period_us") or DEFAULT_PERIOD_US
        if period < present:  # quota/period must not pass the parent's share on the way
            steps.reverse()
    for name, value in steps:
        if value:
            _set(
                directory,
                name,
                str(value),
                "cpu cfs quota" if "quota" in name else "cpu cfs period",
            )
    if burst is not None:
        _set(directory, "cpu.cfs_burst_us", str(burst), "cpu burst")


def set_cpuset(directories: Mapping[str, str], cpu: CpuLimits) -> None:
    """Processors and memory nodes."""
    for key, value in (("cpus", cpu.get("cpus", "")), ("mems", cpu.get("mems", ""))):
        if value:
            directory = _directory(directories, "cpuset", "cpuset")
            _set(directory, f"cpuset.{key}", value, f"cpuset {key}")


def set_pids(directories: Mapping[str, str], limit: int) -> None:
    """Set the most processes the group may hold; 0 and below mean no limit."""
    if limit <= 0 and "pids" not in directories:
        return
    directory = _directory(directories, "pids", "pids limit")
    _set(directory, "pids.max", str(limit) if limit > 0 else "max", "pids limit")


def set_block_io(directories: Mapping[str, str], block: BlockIo) -> None:
    """Weights and throttles; weights need a scheduler with proportional shares (BFQ)."""
    if not any(block.values()):
        return
    directory = _directory(directories, "blkio", "block I/O limits")
    if weight := block.get("weight", 0):
        _set_one_of(directory, ("blkio.weight", "blkio.bfq.weight"), str(weight), "blkio weight")
    if leaf := block.get("leafWeight", 0):
        _set(directory, "blkio.leaf_weight", str(leaf), "blkio leaf weight")
    for device in block.get("weightDevice", []):
        number = f"{device['major']}:{device['minor']}"
        if weight := device.get("weight", 0):
            names = ("blkio.weight_device", "blkio.bfq.weight_device")
            _set_one_of(directory, names, f"{number} {weight}", "blkio weight of a device")
        if leaf := device.get("leafWeight", 0):
            _set(directory, "blkio.leaf_weight_device", f"{number} {leaf}", "blkio leaf weight")
    for key, name in _THROTTLES:
        for throttle in block.get(key, []):  # type: ignore[attr-defined]
            line = f"{throttle['major']}:{throttle['minor']} {throttle.get('rate', 0)}"
            _set(directory, name, line, "blkio throttle")


def _set_hugepages(directories: Mapping[str, str], resources: Resources) -> None:
    for page in resources.get("hugepageLimits", []):
        directory = _directory(directories, "hugetlb", "hugepage limits")
        size, limit = page["pageSize"], str(page["limit"])
        _set(directory, f"hugetlb.{size}.limit_in_bytes", limit, f"hugepages of {size}")
        if os.path.exists(f"{directory}/hugetlb.{size}.rsvd.limit_in_bytes"):
            files.write(f"{directory}/hugetlb.{size}.rsvd.limit_in_bytes", limit)


def _set_network(directories: Mapping[str, str], resources: Resources) -> None:
    network = resources.get("network", {})
    if class_id := network.get("classID"):
        directory = _directory(directories, "net_cls", "network class")
        _set(directory, "net_cls.classid", str(class_id), "network class")
    for entry in network.get("priorities", []):
        directory = _directory(directories, "net_prio", "network priorities")
        line = f"{entry['name']} {entry['priority']}"
        _set(directory, "net_prio.ifpriomap", line, "network priority")


def _rdma(directory: str, devices: Mapping[str, Mapping[str, int]]) -> None:
    for name, limits in devices.items():
        handles, objects = limits.get("hcaHandles"), limits.get("hcaObjects")
        line = name
        line += f" hca_handle={'max' if handles is None else handles}"
        line += f" hca_object={'max' if objects is None else objects}"
        _set(directory, "rdma.max", line, "rdma limits")


def _directory(directories: Mapping[str, str], controller: str, limit: str) -> str:
    if controller not in directories:
        raise UnsupportedLimitError(limit, f"the {controller} cgroup controller is not mounted")
    return directories[controller]


def _set(directory: str, name: str, value: str, limit: str) -> None:
    try:
        files.write(f"{directory}/{name}", value)
    except CgroupError as exc:
        if exc.errno == errno.ENOENT and exc.step == "open" and os.path.isdir(directory):
            raise UnsupportedLimitError(limit, f"this kernel has no {name}") from exc
        raise


def _set_one_of(directory: str, names: tuple[str, ...], value: str, limit: str) -> None:
    for name in names:
        if os.path.exists(f"{directory}/{name}"):
            files.write(f"{directory}/{name}", value)
            return
    raise UnsupportedLimitError(limit, f"this kernel has no {names[0]}")
