"""Counters of a cgroup v2 group in the version-independent shape ``Cgroup.stats`` documents."""

from __future__ import annotations

import os

from cais.linux.cgroups.files import find_number, find_table, find_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_US = 1000
_OPERATIONS = {"rbytes": "read", "wbytes": "write", "rios": "read", "wios": "write"}


def collect(directory: str) -> dict[str, Any]:
    """Read what the enabled controllers offer."""
    found: dict[str, Any] = {"cpu": _cpu(directory)}
    if os.path.exists(f"{directory}/pids.current"):
        found["pids"] = {
            "current": find_number(f"{directory}/pids.current") or 0,
            "limit": find_number(f"{directory}/pids.max"),
        }
    if os.path.exists(f"{directory}/memory.current"):
        found["memory"] = {
            "usage": find_number(f"{directory}/memory.current") or 0,
            "max_usage": find_number(f"{directory}/memory.peak") or 0,
            "failcnt": find_table(f"{directory}/memory.events").get("max", 0),
            "limit": find_number(f"{directory}/memory.max"),
            "stats": find_table(f"{directory}/memory.stat"),
        }
    if os.path.exists(f"{directory}/io.stat"):
        text = find_text(f"{directory}/io.stat") or ""
        found["blkio"] = {
            "service_bytes": _block_io(text, ("rbytes", "wbytes")),
            "serviced": _block_io(text, ("rios", "wios")),
        }
    return found


def _cpu(directory: str) -> dict[str, Any]:
    table = find_table(f"{directory}/cpu.stat")
    return {
        "total_ns": table.get("usage_usec", 0) * _US,
        "user_ns": table.get("user_usec", 0) * _US,
        "system_ns": table.get("system_usec", 0) * _US,
        "per_cpu_ns": [],
        "periods": table.get("nr_periods", 0),
        "throttled_periods": table.get("nr_throttled", 0),
        "throttled_ns": table.get("throttled_usec", 0) * _US,
    }


def _block_io(text: str, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read lines such as ``8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0``."""
    entries = []
    for line in text.splitlines():
        number, _, counters = line.partition(" ")
        major, _, minor = number.partition(":")
        for counter in counters.split():
            name, _, value = counter.partition("=")
            if name in wanted:
                entry = {"major": int(major), "minor": int(minor), "op": _OPERATIONS[name]}
                entries.append({**entry, "value": int(value)})
    return entries
