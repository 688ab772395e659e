"""Paths of /proc and /sys a container cannot read, or cannot write.

Spec: SECURITY.md 3.2 and 3.3; CVE-2017-16539, CVE-2018-10892, GHSA-jq35-85cj-fj4p,
GHSA-6fw5-f8r9-fgfm. A path that this kernel does not have is skipped by the runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cais.spec.container import HostConfig

CPUS = Path("/sys/devices/system/cpu")
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default_masked() -> list[str]:
    """Return the fixed paths and the thermal counters of each processor that has them."""
    throttles = sorted(CPUS.glob("cpu[0-9]*/thermal_throttle"))
    return [*MASKED, *map(str, throttles)]


def masked_paths(host_config: HostConfig) -> list[str]:
    """Return what to mask: None means the default, an empty list and privileged mean nothing."""
    if host_config.privileged:
        return []
    return default_masked() if host_config.masked_paths is None else host_config.masked_paths


def read_only_paths(host_config: HostConfig) -> list[str]:
    """Return what to make read-only, by the same rule."""
    if host_config.privileged:
        return []
    if host_config.readonly_paths is None:
        return list(READ_ONLY)
    return host_config.readonly_paths
