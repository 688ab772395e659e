"""Every counter of a cgroup v1 group, for a person: the shape is what ``runc events`` prints.

Spec: kernel Documentation/admin-guide/cgroup-v1/: cpuacct, cpusets, memory, blkio, hugetlb, pids.
"""

from __future__ import annotations

import os

from cais.linux.cgroups.files import find_number, find_table, find_text
from cais.linux.cgroups.stats_v1 import CLOCK_TICK_NS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_CPUSET_NUMBERS = (
    *("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page"),
    *("memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level"),
)
_BLOCK_COUNTERS = {  # member -> file, without its prefix; the first two are the throttler's too
    "ioServiceBytesRecursive": "io_service_bytes_recursive",
    "ioServicedRecursive": "io_serviced_recursive",
    "ioQueueRecursive": "io_queued_recursive",
    "ioServiceTimeRecursive": "io_service_time_recursive",
    "ioWaitTimeRecursive": "io_wait_time_recursive",
    "ioMergedRecursive": "io_merged_recursive",
    "ioTimeRecursive": "time_recursive",
    "sectorsRecursive": "sectors_recursive",
}


def collect(directories: Mapping[str, str]) -> dict[str, Any]:
    """Read what the mounted controllers offer; ``directories`` is the group's under each."""
    found: dict[str, Any] = {
        "cpu": _cpu(directories),
        "cpuset": _cpuset(directories.get("cpuset", "")),
        "memory": _memory(directories.get("memory", "")),
        "pids": pids(directories.get("pids", "")),
        "blkio": _block_io(directories.get("blkio", "")),
        "hugetlb": _hugepages(directories.get("hugetlb", "")),
    }
    return found


def pids(directory: str) -> dict[str, Any]:
    """Read how many processes there are and may be; of either version."""
    current = find_number(f"{directory}/pids.current")
    limit = find_number(f"{directory}/pids.max")
    return without_zeros({"current": current, "limit": limit})


def numbers_of(text: str) -> list[int]:
    """Read a list such as ``0-2,7``."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def without_zeros(members: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is nought, empty or not there."""
    return {name: value for name, value in members.items() if value}


def _cpu(directories: Mapping[str, str]) -> dict[str, Any]:
    account = directories.get("cpuacct", "")
    ticks = find_table(f"{account}/cpuacct.stat")
    throttling = find_table(f"{directories.get('cpu', '')}/cpu.stat")
    shares = [line.split() for line in _lines(f"{account}/cpuacct.usage_all")[1:]]
    usage = {
        "total": find_number(f"{account}/cpuacct.usage") or 0,
        "percpu": list(map(int, (find_text(f"{account}/cpuacct.usage_percpu") or "").split())),
        "percpu_kernel": [int(line[2]) for line in shares],
        "percpu_user": [int(line[1]) for line in shares],
        "kernel": ticks.get("system", 0) * CLOCK_TICK_NS,
        "user": ticks.get("user", 0) * CLOCK_TICK_NS,
    }
    throttled = {
        "periods": throttling.get("nr_periods", 0),
        "throttledPeriods": throttling.get("nr_throttled", 0),
        "throttledTime": throttling.get("throttled_time", 0),
    }
    counted = {name: value for name, value in usage.items() if value or name in ("kernel", "user")}
    return {"usage": counted, "throttling": without_zeros(throttled)}


def _cpuset(directory: str) -> dict[str, Any]:
    if not os.path.isdir(directory):
        return {}
    found: dict[str, Any] = {
        name: find_number(f"{directory}/cpuset.{name}") or 0 for name in _CPUSET_NUMBERS
    }
    for name in ("cpus", "mems"):
        found[name] = numbers_of(find_text(f"{directory}/cpuset.{name}") or "")
    return found


def _memory(directory: str) -> dict[str, Any]:
    if not os.path.isdir(directory):
        return {}
    raw = find_table(f"{directory}/memory.stat")
    return {
        **without_zeros({"cache": raw.get("cache", 0)}),
        "usage": _usage(f"{directory}/memory"),
        "swap": _usage(f"{directory}/memory.memsw"),
        "kernel": _usage(f"{directory}/memory.kmem"),
        "kernelTCP": _usage(f"{directory}/memory.kmem.tcp"),
        "raw": raw,
    }


def _usage(prefix: str) -> dict[str, int]:
    counters = {
        "limit": find_number(f"{prefix}.limit_in_bytes"),
        "usage": find_number(f"{prefix}.usage_in_bytes"),
        "max": find_number(f"{prefix}.max_usage_in_bytes"),
    }
    return {**without_zeros(counters), "failcnt": find_number(f"{prefix}.failcnt") or 0}


def _block_io(directory: str) -> dict[str, Any]:
    found = {
        member: _entries(f"{directory}/blkio.bfq.{name}")
        or _entries(f"{directory}/blkio.throttle.{name}")
        for member, name in _BLOCK_COUNTERS.items()
    }
    return without_zeros(found)


def _entries(path: str) -> list[dict[str, Any]]:
    """Read lines such as ``8:0 Read 4096``, or ``8:0 4096``; not the total of all devices."""
    entries = []
    for line in _lines(path):
        device, _, rest = line.partition(" ")
        major, colon, minor = device.partition(":")
        operation, _, value = rest.rpartition(" ")
        if colon:
            entry: dict[str, Any] = {"major": int(major), "minor": int(minor)}
            entries.append(without_zeros({**entry, "op": operation, "value": int(value)}))
    return entries


def _hugepages(directory: str) -> dict[str, Any]:
    found = {}
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        _, dot, size = name.removesuffix(".usage_in_bytes").partition("hugetlb.")
        if dot and name.endswith(".usage_in_bytes") and "rsvd" not in name:
            prefix = f"{directory}/hugetlb.{size}"
            counters = {
                "usage": find_number(f"{prefix}.usage_in_bytes"),
                "max": find_number(f"{prefix}.max_usage_in_bytes"),
            }
            failures = find_number(f"{prefix}.failcnt") or 0
            found[size] = {**without_zeros(counters), "failcnt": failures}
    return found


def _lines(path: str) -> list[str]:
    return (find_text(path) or "").splitlines()
