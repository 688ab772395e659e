"""The documents ``spec`` writes: a shell in a read-only root, for root and for an ordinary user."""

from __future__ import annotations

import os

from cais.spec.runtime import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITED = ["nosuid", "noexec", "nodev"]
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MOUNTS: tuple[tuple[str, str, str, list[str]], ...] = (
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        *("/dev/pts", "devpts", "devpts"),
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", [*_LIMITED, "mode=1777", "size=65536k"]),  # noqa: S108
    ("/dev/mqueue", "mqueue", "mqueue", _LIMITED),
    ("/sys", "sysfs", "sysfs", [*_LIMITED, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", [*_LIMITED, "relatime", "ro"]),
)
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware"),
    *("/proc/scsi", "/proc/interrupts", "/sys/devices/virtual/powercap"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def config() -> dict[str, Any]:
    """Return the document for root."""
    namespaces = list(_NAMESPACES)
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        namespaces.append("cgroup")  # as runc does: on cgroup v2 alone
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "cais",
        "mounts": [_mount(*entry) for entry in _MOUNTS],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def rootless_config() -> dict[str, Any]:
    """Return the document for the calling user, who is root inside and nobody else."""
    document = config()
    linux = document["linux"]
    del linux["resources"]
    kinds = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    linux["namespaces"] = [*kinds, {"type": "user"}]
    for entry in document["mounts"]:
        if entry["destination"] == "/sys":  # a sysfs needs a network namespace of one's own
            entry |= {"type": "none", "source": "/sys", "options": ["rbind", *_LIMITED, "ro"]}
        elif entry["destination"] == "/dev/pts":
            entry["options"] = [one for one in entry["options"] if one != "gid=5"]  # not mapped
    return document


def _process() -> dict[str, Any]:
    sets = ("bounding", "effective", "permitted")
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {name: list(_CAPABILITIES) for name in sets},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    return {**entry, "options": list(options)} if options else entry
