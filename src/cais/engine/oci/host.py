"""What the host can do, read once: the ground on which configurations are checked and adapted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cais.linux import apparmor, cgroups
from cais.linux.cgroups import features

if TYPE_CHECKING:
    from cais.linux.cgroups import Hierarchy
    from cais.linux.cgroups.features import Features

PROC_STATUS = Path("/proc/self/status")
_SECCOMP_ACTIONS = Path("/proc/sys/kernel/seccomp/actions_avail")


@dataclass(frozen=True, slots=True)
class Host:
    """Facts that do not change while the daemon runs.

    ``capabilities`` is the bounding set as a mask: no container can have more than the daemon.
    ``apparmor`` says whether containers are confined by it.
    """

    hierarchy: Hierarchy
    features: Features
    cpus: int
    capabilities: int
    last_capability: int
    seccomp: bool
    kernel: tuple[int, int]
    machine: str
    apparmor: bool = False


def detect_host() -> Host:
    """Look at the running kernel. Blocks: reads a dozen small files."""
    hierarchy = cgroups.detect()
    release = os.uname().release.split(".")
    return Host(
        hierarchy=hierarchy,
        features=features.probe(hierarchy),
        cpus=os.cpu_count() or 1,
        capabilities=_bounding_set(),
        last_capability=_number(Path("/proc/sys/kernel/cap_last_cap"), 40),
        seccomp=_SECCOMP_ACTIONS.exists(),
        kernel=(int(release[0]), int(release[1].partition("-")[0])),
        machine=os.uname().machine,
        apparmor=apparmor.is_usable(),
    )


def _bounding_set() -> int:
    for line in PROC_STATUS.read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def _number(path: Path, default: int) -> int:
    try:
        return int(path.read_text())
    except OSError:
        return default
