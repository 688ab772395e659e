"""Device nodes and links in the container's /dev, everything on descriptors.

Spec: OCI runtime-spec 1.2, config-linux.md "Devices", "Default Devices".
"""

from __future__ import annotations

import errno
import os
import stat

from cais.errors import InvalidArgumentError
from cais.linux import mount, paths
from cais.linux.syscalls import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_DEFAULTS = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_MAJORS, _MINORS = range(1 << 12), range(1 << 20)  # the kernel's dev_t
NULL_DEVICE = os.makedev(1, 3)


class Device:
    """A node to make; ``tree_fd`` is the host's node when it must be bound instead."""

    __slots__ = ("gid", "is_listed", "mode", "number", "path", "tree_fd", "uid")

    def __init__(self, path: str, mode: int, number: int, uid: int = 0, gid: int = 0) -> None:
        self.path = path
        self.mode = mode
        self.number = number
        self.uid = uid
        self.gid = gid
        self.is_listed = False  # in the document, not only a default
        self.tree_fd = -1

    def is_at(self, status: os.stat_result) -> bool:
        """Say whether ``status`` is of a node of this device."""
        kind = stat.S_IFMT(self.mode)
        return (stat.S_IFMT(status.st_mode), status.st_rdev) == (kind, self.number)


def parse_devices(entries: Iterable[Mapping[str, Any]]) -> list[Device]:
    """Return the default devices and those of ``linux.devices``; a path listed there wins.

    Raises:
        InvalidArgumentError: a node without its numbers, or with ones no kernel has.

    """
    devices = {path: Device(path, stat.S_IFCHR | 0o666, os.makedev(*n)) for path, *n in _DEFAULTS}
    for entry in entries:
        path = os.path.normpath("/" + entry["path"].lstrip("/"))
        kind = _KINDS[entry["type"]]
        number = 0 if kind == stat.S_IFIFO else _number(entry)
        mode = kind | entry.get("fileMode", 0o666) & 0o7777
        devices[path] = Device(path, mode, number, entry.get("uid", 0), entry.get("gid", 0))
        devices[path].is_listed = True
    return list(devices.values())


def _number(entry: Mapping[str, Any]) -> int:
    major, minor = entry.get("major"), entry.get("minor")
    if major is None or minor is None:
        raise InvalidArgumentError(f"device {entry['path'][:128]}: major and minor are needed")
    if major not in _MAJORS or minor not in _MINORS:
        raise InvalidArgumentError(f"device {entry['path'][:128]}: no such numbers {major}:{minor}")
    return os.makedev(major, minor)


def open_host_nodes(devices: Iterable[Device]) -> None:
    """Take the host's nodes, for a container that may not make its own (user namespace).

    Raises:
        KernelError: ENOENT, the host has none; ENODEV, the host's is another device.

    """
    for device in devices:
        if stat.S_ISFIFO(device.mode):
            continue  # which everybody may make
        device.tree_fd = mount.clone_tree(device.path)
        if not device.is_at(os.fstat(device.tree_fd)):
            what = f"it is not device {os.major(device.number)}:{os.minor(device.number)}"
            raise KernelError(errno.ENODEV, f"bind {device.path}", what)
        mount.set_attributes(device.tree_fd, set_bits=mount.MOUNT_ATTR_RDONLY)


def make_devices(root_fd: int, devices: Iterable[Device]) -> None:
    """Make each node below ``root_fd``; what has the name of a default already stays as it is.

    Raises:
        KernelError: EEXIST, a device of the document has a name that something else has.

    """
    for device in devices:
        directory, name = os.path.split(device.path)
        parent_fd = paths.ensure_directory(root_fd, directory)
        try:
            _make(parent_fd, name, device)
        except FileExistsError:
            if device.is_listed:
                _check_existing(parent_fd, name, device)
        except OSError as error:
            raise KernelError(error.errno or 0, f"make device {device.path}") from error
        finally:
            os.close(parent_fd)


def make_links(dev_fd: int, *, kcore: bool) -> None:
    """Make the links Docker's containers have in /dev, ``ptmx`` among them."""
    links = (*_LINKS, ("core", "/proc/kcore")) if kcore else _LINKS
    for name, target in links:
        _link(dev_fd, name, target, replace=False)
    _link(dev_fd, "ptmx", "pts/ptmx", replace=True)


def clone_null() -> int:
    """Copy the mount of the host's /dev/null, detached, and make sure that it is the null device.

    Must run before the container's root is entered (CVE-2025-31133). The mount is read-only:
    the device can be written all the same, but the host's node keeps its mode and owner.
    """
    fd = mount.clone_tree("/dev/null", follow=False)
    if not is_null(fd):
        os.close(fd)
        raise KernelError(errno.ENODEV, "open /dev/null", "not the null device")
    mount.set_attributes(fd, set_bits=mount.MOUNT_ATTR_RDONLY)
    return fd


def is_null(fd: int) -> bool:
    """Say whether ``fd`` is the null device, under whatever name."""
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE


def open_null(root_fd: int, access: int) -> int:
    """Open the container's own /dev/null; the result is owned.

    Args:
        root_fd: the container's root. Borrowed.
        access: O_RDONLY or O_WRONLY.

    Raises:
        KernelError: ENODEV, what is there is something else; and as open(2).

    """
    fd = paths.open_in_root(root_fd, "/dev/null", access | os.O_NONBLOCK | os.O_NOCTTY)
    if not is_null(fd):
        os.close(fd)
        raise KernelError(errno.ENODEV, "open /dev/null", "not the null device")
    os.set_blocking(fd, True)
    return fd


def _make(parent_fd: int, name: str, device: Device) -> None:
    if device.tree_fd >= 0:
        target_fd = _bind_target(parent_fd, name)
        try:
            mount.place(device.tree_fd, target_fd)
        finally:
            os.close(target_fd)
            os.close(device.tree_fd)
        return
    os.mknod(name, device.mode, device.number, dir_fd=parent_fd)
    if device.uid or device.gid:
        os.chown(name, device.uid, device.gid, dir_fd=parent_fd, follow_symlinks=False)


def _bind_target(parent_fd: int, name: str) -> int:
    """Open what a node is to be bound on: a new file, or one that is no link and no directory."""
    try:
        return paths.create_file(parent_fd, name)
    except FileExistsError:
        rules = paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS
        fd = paths.open_at(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=rules)
    if stat.S_IFMT(os.fstat(fd).st_mode) in (stat.S_IFDIR, stat.S_IFLNK):
        os.close(fd)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
    return fd


def _check_existing(parent_fd: int, name: str, device: Device) -> None:
    if not device.is_at(os.stat(name, dir_fd=parent_fd, follow_symlinks=False)):
        what = "something else has its name"
        raise KernelError(errno.EEXIST, f"make device {device.path}", what)


def _link(dev_fd: int, name: str, target: str, *, replace: bool) -> None:
    try:
        os.symlink(target, name, dir_fd=dev_fd)
    except FileExistsError:
        if not replace or _target(dev_fd, name) == target:
            return
        try:
            os.unlink(name, dir_fd=dev_fd)
            os.symlink(target, name, dir_fd=dev_fd)
        except OSError:
            return  # a directory or a mount of the image's or the user's: theirs to have


def _target(dev_fd: int, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=dev_fd)
    except OSError:
        return ""
