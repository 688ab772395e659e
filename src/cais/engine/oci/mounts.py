"""The mount list: Docker's defaults, then what was asked for, by depth of destination.

Spec: SECURITY.md 3.4; OCI runtime-spec 1.2, config.md "Mounts".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cais.engine.oci.modes import other_container
from cais.errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cais.spec.container import HostConfig
    from cais.volumes.mounts import MountPoint

Document = dict[str, Any]
DEFAULT_SHM_BYTES = 64 * 1024 * 1024
MOUNTINFO = "/proc/self/mountinfo"
_SHM = "/dev/shm"  # noqa: S108 - a mount of the container, or the host's own
_TMPFS_BASE = ("noexec", "nosuid", "nodev", "rprivate")
_TMPFS_DATA = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))
_PROPAGATIONS = ("private", "shared", "slave", "unbindable")
# Options that answer the same question: of each group the last one written counts.
_FLAG_GROUPS = (
    ("ro", "rw"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("exec", "noexec"),
    ("sync", "async"),
    ("dirsync",),
    ("mand", "nomand"),
    ("atime", "noatime"),
    ("diratime", "nodiratime"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
    tuple(prefix + kind for prefix in ("", "r") for kind in _PROPAGATIONS),
)
_FLAG_GROUP_OF = {option: group for group in _FLAG_GROUPS for option in group}


def default_mounts(shm_bytes: int) -> list[Document]:
    """Return what every container gets."""
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            *("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance"),
            *("ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount(
            *(_SHM, "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777"),
            f"size={shm_bytes}",
        ),
    ]


def build_mounts(
    host_config: HostConfig,
    points: Sequence[MountPoint],
    files: Mapping[str, str],
    shm_path: str | None,
) -> list[Document]:
    """Return ``mounts``.

    A mount asked for takes the place of a default at the same destination, and one at /dev of
    all below it. With a read-only root the defaults become read-only but for those that must be
    written to. Privileged: /sys and the cgroups can be written.

    Args:
        host_config: modes, shm size, tmpfs are in ``points``.
        points: resolved binds, volumes and tmpfs.
        files: /etc/hosts and its like: destination to path on the host; may be written unless
            the root is read-only.
        shm_path: the directory that is /dev/shm when it is shared with other containers.

    Raises:
        InvalidArgumentError: a tmpfs option that is none; a shared mount of a private source.
        UnsupportedError: a directory inside a volume.

    """
    asked = [point_mount(point) for point in points]
    taken = {mount["destination"] for mount in asked}
    asked += _files(files, taken, writable=not host_config.readonly_rootfs)
    asked += _shared_memory(host_config, shm_path, taken)
    taken |= {mount["destination"] for mount in asked}
    asked.sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))
    defaults = [
        mount
        for mount in default_mounts(host_config.shm_size or DEFAULT_SHM_BYTES)
        if _is_wanted(mount["destination"], taken, host_config)
    ]
    if host_config.readonly_rootfs:
        _make_read_only(defaults)
    if host_config.privileged:
        _make_writable(defaults)
    return defaults + asked


def small_files(files: Mapping[str, str], points: Iterable[MountPoint]) -> list[str]:
    """Return ``files`` of ``cais.json``: those of the engine's files no mount asked for replaces.

    The container gets copies of bounded size, so that it cannot fill the host through them.
    """
    taken = {point.destination for point in points}
    return [destination for destination in files if destination not in taken]


def rootfs_propagation(points: Iterable[MountPoint]) -> str | None:
    """Return what the root must be so that mounts can come in and go out; None for private."""
    wanted = {point.propagation.removeprefix("r") for point in points}
    if "shared" in wanted:
        return "shared"
    return "rslave" if "slave" in wanted else None


def merge_tmpfs_options(options: Iterable[str]) -> list[str]:
    """Keep the last of contradicting options, in the order of those kept.

    Raises:
        InvalidArgumentError: Docker's text.

    """
    kept: list[str] = []
    seen: set[object] = set()
    for option in reversed(list(options)):
        name, equals, _ = option.partition("=")
        if option == "defaults":
            continue
        if option not in _FLAG_GROUP_OF and not (equals and name in _TMPFS_DATA):
            quoted = " ".join(f'"{part}"' for part in option[:128].split("=", 1))
            raise InvalidArgumentError(f"Invalid tmpfs option [{quoted}]")
        question: object = _FLAG_GROUP_OF.get(option, name)
        if question not in seen:
            seen.add(question)
            kept.insert(0, option)
    return kept


def point_mount(point: MountPoint) -> Document:
    """Return a mount that was asked for, as the OCI document has it; raises as ``build_mounts``."""
    if point.subpath:
        raise UnsupportedError(f"volume-subpath is not supported: {point.subpath[:128]}")
    if point.type == "tmpfs":
        options = merge_tmpfs_options([*_TMPFS_BASE, *point.options])
        if not point.rw:
            options = merge_tmpfs_options([*options, "ro"])
        return _mount(point.destination, "tmpfs", "tmpfs", *options)
    if point.propagation:
        check_propagation(point.source, point.propagation)
    options = ["rbind" if point.recursive else "bind"]
    if not point.rw:
        options.append("rro" if point.read_only_recursive else "ro")
    options.append(point.propagation or "rprivate")
    return _mount(point.destination, "bind", point.source, *options, *point.options)


def check_propagation(source: str, propagation: str) -> None:
    """Refuse to share a source that is itself not shared.

    Raises:
        InvalidArgumentError: Docker's text.

    """
    kind = propagation.removeprefix("r")
    if kind not in ("shared", "slave"):
        return
    point, tags = _mount_of(source)
    if kind == "shared" and "shared" not in tags:
        raise InvalidArgumentError(
            f"path {source} is mounted on {point} but it is not a shared mount"
        )
    if not tags:
        raise InvalidArgumentError(
            f"path {source} is mounted on {point} but it is not a shared or slave mount"
        )


def _mount_of(path: str) -> tuple[str, set[str]]:
    """Return the mount point above ``path`` and which of shared and master it is."""
    best, tags = "", set[str]()
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123 - /proc
        for line in table:
            fields = line.split(" - ")[0].split(" ")
            point = fields[4]
            if len(point) >= len(best) and _is_below(path, point):
                best = point
                tags = {field.partition(":")[0] for field in fields[6:]} & {"shared", "master"}
    return best, tags


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _files(files: Mapping[str, str], taken: set[str], *, writable: bool) -> list[Document]:
    options = ("rbind", "rprivate") if writable else ("rbind", "ro", "rprivate")
    return [
        _mount(destination, "bind", source, *options)
        for destination, source in files.items()
        if destination not in taken
    ]


def _shared_memory(
    host_config: HostConfig, shm_path: str | None, taken: set[str]
) -> list[Document]:
    """Bind the /dev/shm that is the host's, another container's, or open to others."""
    mode = host_config.ipc_mode
    if _SHM in taken or mode in ("", "none", "private"):
        return []
    source = _SHM if mode == "host" else shm_path
    if source is None:
        if other_container(mode) is not None:
            raise InvalidArgumentError(f"invalid IPC mode: {mode}: it shares no /dev/shm")
        return []
    return [_mount(_SHM, "bind", source, "rbind", "rprivate")]


def _is_wanted(destination: str, taken: set[str], host_config: HostConfig) -> bool:
    if destination in taken or ("/dev" in taken and destination.startswith("/dev/")):
        return False
    return not (destination == _SHM and host_config.ipc_mode == "none")


def _make_read_only(mounts: list[Document]) -> None:
    for mount in mounts:
        needs_writing = mount["destination"] in ("/proc", "/dev") or mount[
            "destination"
        ].startswith("/dev/")
        if not needs_writing and "ro" not in mount["options"]:
            mount["options"].append("ro")


def _make_writable(mounts: list[Document]) -> None:
    for mount in mounts:
        if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
            mount["options"].remove("ro")


def _mount(destination: str, kind: str, source: str, *options: str) -> Document:
    return {
        "destination": os.fspath(destination),
        "type": kind,
        "source": source,
        "options": list(options),
    }
