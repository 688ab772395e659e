"""What this host can limit: the facts behind ``docker info`` and "limitation discarded"."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups.detect import Hierarchy


class Features:
    """One boolean per limit, named as Docker's ``SystemInfo`` names them.

    On v2 memory reservation, swappiness and the OOM switch follow what the interface has:
    swappiness, disabling the OOM killer and real-time scheduling do not exist there.
    """

    __slots__ = (
        "blkio_read_bps",
        "blkio_read_iops",
        "blkio_weight",
        "blkio_weight_device",
        "blkio_write_bps",
        "blkio_write_iops",
        "cgroup_devices",
        "cpu_cfs_period",
        "cpu_cfs_quota",
        "cpu_realtime",
        "cpu_shares",
        "cpuset",
        "cpuset_cpus",
        "cpuset_mems",
        "kernel_memory",
        "memory_limit",
        "memory_reservation",
        "memory_swappiness",
        "oom_kill_disable",
        "pids_limit",
        "swap_limit",
    )

    cpuset_cpus: str
    cpuset_mems: str
    blkio_read_bps: bool
    blkio_read_iops: bool
    blkio_weight: bool
    blkio_weight_device: bool
    blkio_write_bps: bool
    blkio_write_iops: bool
    cgroup_devices: bool
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_realtime: bool
    cpu_shares: bool
    cpuset: bool
    kernel_memory: bool
    memory_limit: bool
    memory_reservation: bool
    memory_swappiness: bool
    oom_kill_disable: bool
    pids_limit: bool
    swap_limit: bool

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, "" if name in ("cpuset_cpus", "cpuset_mems") else False)


def probe(hierarchy: Hierarchy) -> Features:
    """Look at the hierarchy's files; nothing is created."""
    features = Features()
    features.kernel_memory = False  # ignored since Linux 5.4 deprecated it, as Docker does
    if hierarchy.version == 1:
        _probe_v1(hierarchy, features)
    else:
        _probe_v2(hierarchy, features)
    return features


def _probe_v1(hierarchy: Hierarchy, features: Features) -> None:
    def has(controller: str, file: str) -> bool:
        mount = hierarchy.mounts.get(controller)
        return mount is not None and os.path.exists(f"{mount}/{file}")

    features.memory_limit = has("memory", "memory.limit_in_bytes")
    features.swap_limit = has("memory", "memory.memsw.limit_in_bytes")
    features.memory_reservation = has("memory", "memory.soft_limit_in_bytes")
    features.oom_kill_disable = has("memory", "memory.oom_control")
    features.memory_swappiness = has("memory", "memory.swappiness")
    features.cpu_shares = has("cpu", "cpu.shares")
    features.cpu_cfs_period = has("cpu", "cpu.cfs_period_us")
    features.cpu_cfs_quota = has("cpu", "cpu.cfs_quota_us")
    features.cpu_realtime = has("cpu", "cpu.rt_period_us")
    features.blkio_weight = has("blkio", "blkio.weight") or has("blkio", "blkio.bfq.weight")
    features.blkio_weight_device = has("blkio", "blkio.weight_device") or has(
        "blkio", "blkio.bfq.weight_device"
    )
    features.blkio_read_bps = has("blkio", "blkio.throttle.read_bps_device")
    features.blkio_write_bps = has("blkio", "blkio.throttle.write_bps_device")
    features.blkio_read_iops = has("blkio", "blkio.throttle.read_iops_device")
    features.blkio_write_iops = has("blkio", "blkio.throttle.write_iops_device")
    features.pids_limit = "pids" in hierarchy.mounts
    features.cgroup_devices = "devices" in hierarchy.mounts
    features.cpuset = "cpuset" in hierarchy.mounts
    if features.cpuset:
        features.cpuset_cpus = _first_line(f"{hierarchy.mounts['cpuset']}/cpuset.cpus")
        features.cpuset_mems = _first_line(f"{hierarchy.mounts['cpuset']}/cpuset.mems")


def _probe_v2(hierarchy: Hierarchy, features: Features) -> None:
    present = hierarchy.unified_controllers
    features.memory_limit = features.memory_reservation = "memory" in present
    features.swap_limit = "memory" in present and _accounts_swap(hierarchy)
    features.cpu_shares = features.cpu_cfs_period = features.cpu_cfs_quota = "cpu" in present
    features.blkio_weight = features.blkio_weight_device = "io" in present
    features.blkio_read_bps = features.blkio_write_bps = "io" in present
    features.blkio_read_iops = features.blkio_write_iops = "io" in present
    features.pids_limit = "pids" in present
    features.cgroup_devices = True  # a program, not a controller
    features.cpuset = "cpuset" in present
    if features.cpuset:
        features.cpuset_cpus = _first_line(f"{hierarchy.unified}/cpuset.cpus.effective")
        features.cpuset_mems = _first_line(f"{hierarchy.unified}/cpuset.mems.effective")


def _accounts_swap(hierarchy: Hierarchy) -> bool:
    """Whether groups have ``memory.swap.max``: the root has none, so its children tell."""
    with os.scandir(str(hierarchy.unified)) as entries:
        groups = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    with_memory = [group for group in groups if os.path.exists(f"{group}/memory.max")]
    if with_memory:
        return any(os.path.exists(f"{group}/memory.swap.max") for group in with_memory)
    return os.path.exists("/proc/swaps")


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except OSError:
        return ""
