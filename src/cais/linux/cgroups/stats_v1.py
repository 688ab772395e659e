"""Counters of a cgroup v1 group in the version-independent shape ``Cgroup.stats`` documents."""

from __future__ import annotations

from cais.linux.cgroups.files import find_number, find_table, find_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CLOCK_TICK_NS = 10_000_000  # cpuacct.stat counts USER_HZ, fixed at 100 for user space
NO_LIMIT = 2**63 - 4096  # what memory.limit_in_bytes reads when nothing limits


def collect(directories: Mapping[str, str]) -> dict[str, Any]:
    """Read what the present controllers offer."""
    found: dict[str, Any] = {}
    if "pids" in directories:
        found["pids"] = {
            "current": find_number(f"{directories['pids']}/pids.current") or 0,
            "limit": find_number(f"{directories['pids']}/pids.max"),
        }
    if "memory" in directories:
        found["memory"] = _memory(directories["memory"])
    if "cpuacct" in directories or "cpu" in directories:
        found["cpu"] = _cpu(directories)
    if "blkio" in directories:
        found["blkio"] = {
            "service_bytes": _block_io(directories["blkio"], "io_service_bytes"),
            "serviced": _block_io(directories["blkio"], "io_serviced"),
        }
    return found


def _memory(directory: str) -> dict[str, Any]:
    limit = find_number(f"{directory}/memory.limit_in_bytes")
    return {
        "usage": find_number(f"{directory}/memory.usage_in_bytes") or 0,
        "max_usage": find_number(f"{directory}/memory.max_usage_in_bytes") or 0,
        "failcnt": find_number(f"{directory}/memory.failcnt") or 0,
        "limit": limit if limit is not None and limit < NO_LIMIT else None,
        "stats": find_table(f"{directory}/memory.stat"),
    }


def _cpu(directories: Mapping[str, str]) -> dict[str, Any]:
    account, bandwidth = directories.get("cpuacct", ""), directories.get("cpu", "")
    ticks = find_table(f"{account}/cpuacct.stat")
    throttling = find_table(f"{bandwidth}/cpu.stat")
    per_cpu = find_text(f"{account}/cpuacct.usage_percpu") or ""
    return {
        "total_ns": find_number(f"{account}/cpuacct.usage") or 0,
        "user_ns": ticks.get("user", 0) * CLOCK_TICK_NS,
        "system_ns": ticks.get("system", 0) * CLOCK_TICK_NS,
        "per_cpu_ns": [int(word) for word in per_cpu.split()],
        "periods": throttling.get("nr_periods", 0),
        "throttled_periods": throttling.get("nr_throttled", 0),
        "throttled_ns": throttling.get("throttled_time", 0),
    }


def _block_io(directory: str, counter: str) -> list[dict[str, Any]]:
    """Prefer the recursive counters of BFQ, and those of the throttler where it has none."""
    for name in (f"blkio.bfq.{counter}_recursive", f"blkio.throttle.{counter}_recursive"):
        if entries := _parse_block_io(find_text(f"{directory}/{name}") or ""):
            return entries
    return []


def _parse_block_io(text: str) -> list[dict[str, Any]]:
    """Read lines such as ``8:0 Read 4096``; the ``Total`` of all devices is left out."""
    entries = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            entry = {"major": int(major), "minor": int(minor), "op": words[1].lower()}
            entries.append({**entry, "value": int(words[2])})
    return entries
