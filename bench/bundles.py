"""One OCI bundle of busybox that every runtime can run: Docker's defaults without a network."""

import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from cais.testing.archives import busybox_rootfs

MOUNTS = [
    ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
]
MASKED = ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]
CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]  # fmt: skip


def make_bundle(directory: Path, *command: str, cgroup: str) -> Path:
    """Write ``config.json`` and the root filesystem; return the directory."""
    rootfs = directory / "rootfs"
    rootfs.mkdir(parents=True)
    with tarfile.open(fileobj=BytesIO(busybox_rootfs())) as archive:
        for member in archive:
            _unpack(archive, member, rootfs)
    (directory / "config.json").write_text(json.dumps(document(command, cgroup)))
    return directory


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, rootfs: Path) -> None:
    path = rootfs / member.name
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        os.symlink(member.linkname, path)
    else:
        content = archive.extractfile(member)
        assert content is not None
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.read())
        path.chmod(0o755)


def document(command: tuple[str, ...], cgroup: str) -> dict[str, Any]:
    """Return the OCI runtime document."""
    kinds = ("pid", "ipc", "uts", "mount", "network")
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": where, "type": kind, "source": kind, "options": options}
            for where, kind, options in MOUNTS
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "cgroupsPath": cgroup,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    }
