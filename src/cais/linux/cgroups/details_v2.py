"""Every counter of a cgroup v2 group, for a person: the shape is what ``runc events`` prints.

Spec: kernel Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os

from cais.linux.cgroups import details_v1
from cais.linux.cgroups.files import find_number, find_table, find_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_US = 1000
_OPERATIONS = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}
_PRESSURES = {"cpu": "cpu", "memory": "memory", "blkio": "io"}  # member -> file
_UNLIMITED = 2**64 - 1  # runc's word for a limit of "max"


def collect(directory: str) -> dict[str, Any]:
    """Read what the enabled controllers offer."""
    found = {
        "cpu": _cpu(directory),
        "cpuset": _cpuset(directory),
        "memory": _memory(directory),
        "pids": details_v1.pids(directory),
        "blkio": _block_io(directory),
        "hugetlb": _hugepages(directory),
    }
    for member, name in _PRESSURES.items():
        pressure = _pressure(f"{directory}/{name}.pressure")
        if pressure:
            found[member]["psi"] = pressure
    return found


def _cpu(directory: str) -> dict[str, Any]:
    table = find_table(f"{directory}/cpu.stat")
    throttled = {
        "periods": table.get("nr_periods", 0),
        "throttledPeriods": table.get("nr_throttled", 0),
        "throttledTime": table.get("throttled_usec", 0) * _US,
    }
    usage = {
        "kernel": table.get("system_usec", 0) * _US,
        "user": table.get("user_usec", 0) * _US,
    }
    total = {"total": table.get("usage_usec", 0) * _US}
    return {
        "usage": {**details_v1.without_zeros(total), **usage},
        "throttling": details_v1.without_zeros(throttled),
    }


def _cpuset(directory: str) -> dict[str, Any]:
    members = {
        name: details_v1.numbers_of(find_text(f"{directory}/cpuset.{name}.effective") or "")
        for name in ("cpus", "mems")
    }
    return details_v1.without_zeros(members)


def _memory(directory: str) -> dict[str, Any]:
    if not os.path.exists(f"{directory}/memory.current"):
        return {}
    raw = find_table(f"{directory}/memory.stat")
    failures = find_table(f"{directory}/memory.events").get("max", 0)
    return {
        **details_v1.without_zeros({"cache": raw.get("file", 0)}),
        "usage": {**_usage(f"{directory}/memory"), "failcnt": failures},
        "swap": {**_usage(f"{directory}/memory.swap"), "failcnt": 0},
        "raw": raw,
    }


def _usage(prefix: str) -> dict[str, int]:
    counters = {
        "limit": _UNLIMITED
        if find_text(f"{prefix}.max") == "max"
        else find_number(f"{prefix}.max"),
        "usage": find_number(f"{prefix}.current"),
        "max": find_number(f"{prefix}.peak"),
    }
    return details_v1.without_zeros(counters)


def _block_io(directory: str) -> dict[str, Any]:
    """Read lines such as ``8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0``."""
    found: dict[str, Any] = {}
    for line in (find_text(f"{directory}/io.stat") or "").splitlines():
        device, *counters = line.split()
        major, _, minor = device.partition(":")
        for counter in counters:
            name, _, value = counter.partition("=")
            if name in _OPERATIONS:
                member, operation = _OPERATIONS[name]
                entry = {"major": int(major), "minor": int(minor), "op": operation}
                entries = found.setdefault(member, [])
                entries.append(details_v1.without_zeros({**entry, "value": int(value)}))
    return found


def _hugepages(directory: str) -> dict[str, Any]:
    found = {}
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if name.startswith("hugetlb.") and name.endswith(".current") and "rsvd" not in name:
            size = name.removeprefix("hugetlb.").removesuffix(".current")
            usage = {"usage": find_number(f"{directory}/{name}")}
            events = find_table(f"{directory}/hugetlb.{size}.events")
            found[size] = {**details_v1.without_zeros(usage), "failcnt": events.get("max", 0)}
    return found


def _pressure(path: str) -> dict[str, Any]:
    """Read lines such as ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``."""
    try:
        text = find_text(path) or ""
    except OSError:  # EOPNOTSUPP and its like: accounting is switched off
        return {}
    found: dict[str, Any] = {}
    for line in text.splitlines():
        kind, *members = line.split()
        pairs = (member.partition("=") for member in members)
        found[kind] = {
            name: int(value) if name == "total" else float(value) for name, _, value in pairs
        }
    return found
