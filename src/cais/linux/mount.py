"""Mounts made, changed and placed by descriptor.

mount(2) takes paths, looks them up again at every step and loses attributes of submounts. Here a
file system or a copy of an existing tree is first a *detached* mount, known only by its
descriptor: it gets its attributes while nobody can see it, and one call places it on another
descriptor. A detached mount that is never placed disappears when its descriptor is closed.

Spec: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2) (Linux 5.2),
mount_setattr(2) (Linux 5.12), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

from cais.linux.syscalls import Bytes, KernelError, Long, Pointer, ULong, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME_MASK = 0x70  # a field, not bits: it is cleared as a whole
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
_MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH = 1, 8
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING = 0, 1
_FSCONFIG_CMD_CREATE, _FSCONFIG_CMD_RECONFIGURE = 6, 7
_PAGE_BYTES = 4096
_VALUE_LIMIT = 255  # fsconfig(2) copies at most 256 bytes of a string


class _MountAttr(ctypes.Structure):  # struct mount_attr, version 0
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


_open_tree = system_call("open_tree", Long, Bytes, ULong)
_move_mount = system_call("move_mount", Long, Bytes, Long, Bytes, ULong)
_mount_setattr = system_call("mount_setattr", Long, Bytes, ULong, Pointer, Long)
_fsopen = system_call("fsopen", Bytes, ULong)
_fsconfig = system_call("fsconfig", Long, ULong, Bytes, Bytes, Long)
_fsmount = system_call("fsmount", Long, ULong, ULong)
_fspick = system_call("fspick", Long, Bytes, ULong)
_mount = system_call("mount", Bytes, Bytes, Bytes, ULong, Bytes)
_umount2 = system_call("umount2", Bytes, Long)
_pivot_root = system_call("pivot_root", Bytes, Bytes)


def new_mount(
    kind: str, options: Iterable[tuple[str, str | None]] = (), attributes: int = 0, source: str = ""
) -> int:
    """Make a file system and return it as a detached mount; the descriptor is owned.

    Args:
        kind: as in /proc/filesystems.
        options: the file system's own, in order; None for a flag.
        attributes: MOUNT_ATTR_* of the mount.
        source: what mountinfo shows; the kind when empty.

    Raises:
        KernelError: ENODEV, no such file system here; EINVAL, an option it does not know. The
            text ends with the kernel's own explanation, when it gives one.

    """
    context_fd = open_context(kind)
    try:
        return finish(context_fd, kind, options, attributes, source)
    finally:
        os.close(context_fd)


def open_context(kind: str) -> int:
    """Begin to make a file system; the descriptor is owned. Namespaces are the caller's of now."""
    return _fsopen(kind.encode(), _FSOPEN_CLOEXEC, about=kind)


def finish(
    context_fd: int,
    kind: str,
    options: Iterable[tuple[str, str | None]] = (),
    attributes: int = 0,
    source: str = "",
) -> int:
    """Make the file system of ``open_context`` (borrowed); otherwise as ``new_mount``."""
    _configure(context_fd, _FSCONFIG_SET_STRING, kind, "source", source or kind)
    _set_options(context_fd, kind, options)
    _configure(context_fd, _FSCONFIG_CMD_CREATE, kind, None, None)
    return _fsmount(context_fd, _FSMOUNT_CLOEXEC, attributes, about=kind)


def reconfigure(target_fd: int, options: Iterable[tuple[str, str | None]]) -> None:
    """Change options of the file system that is mounted at ``target_fd`` (borrowed).

    Raises:
        KernelError: EINVAL, no root of a mount or an option that cannot change; EPERM.

    """
    context_fd = _fspick(target_fd, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    try:
        _set_options(context_fd, "remount", options)
        _configure(context_fd, _FSCONFIG_CMD_RECONFIGURE, "remount", None, None)
    finally:
        os.close(context_fd)


def knows_option(kind: str, key: str, value: str) -> bool:
    """Say whether this kernel's file system ``kind`` takes an option; nothing is mounted."""
    context_fd = open_context(kind)
    try:
        _configure(context_fd, _FSCONFIG_SET_STRING, kind, key, value)
    except KernelError:
        return False
    finally:
        os.close(context_fd)
    return True


def clone_tree(
    path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False, follow: bool = True
) -> int:
    """Copy the mount(s) at ``path`` as a detached tree; the descriptor is owned.

    Args:
        path: looked up once; empty: ``dir_fd`` itself.
        dir_fd: where a relative path starts. Borrowed.
        recursive: with the mounts below.
        follow: follow a symbolic link in the last component.

    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    flags |= 0 if path else AT_EMPTY_PATH
    flags |= 0 if follow else AT_SYMLINK_NOFOLLOW
    return _open_tree(dir_fd, os.fsencode(path), flags, about=path)


def place(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on the file or directory open at ``target_fd``; borrows both."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _move_mount(mount_fd, b"", target_fd, b"", flags)


def place_at(mount_fd: int, path: str) -> None:
    """Attach a detached mount at a path the caller controls."""
    _move_mount(mount_fd, b"", AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH, about=path)


def set_attributes(
    mount_fd: int,
    *,
    set_bits: int = 0,
    clear_bits: int = 0,
    propagation: int = 0,
    recursive: bool = False,
) -> None:
    """Change attributes and propagation of the mount at ``mount_fd``.

    Setting an access-time mode clears the mode that was there.

    Raises:
        KernelError: EPERM, an attribute locked by the owner of another user namespace.

    """
    if set_bits & MOUNT_ATTR_ATIME_MASK:
        clear_bits |= MOUNT_ATTR_ATIME_MASK
    args = _MountAttr(set=set_bits, clear=clear_bits, propagation=propagation)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(args)
    _mount_setattr(mount_fd, b"", flags, ctypes.addressof(args), size, about=f"{set_bits:#x}")


def map_identities(mount_fd: int, user_namespace_fd: int, *, recursive: bool = False) -> None:
    """Show the owners of a detached mount's files through a user namespace's mapping.

    Args:
        mount_fd: a mount that was never placed. Borrowed.
        user_namespace_fd: not the caller's own. Borrowed.
        recursive: also on the mounts below.

    Raises:
        KernelError: EINVAL, this file system or kernel cannot (Linux 5.12); EPERM, no
            CAP_SYS_ADMIN in the user namespace that owns the file system.

    """
    args = _MountAttr(set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(args)
    _mount_setattr(mount_fd, b"", flags, ctypes.addressof(args), size, about="idmap")


def set_tree_propagation(path: str, propagation: int) -> None:
    """Set the propagation of the mount at ``path`` and of all below."""
    args = _MountAttr(propagation=propagation)
    size = ctypes.sizeof(args)
    _mount_setattr(
        AT_FDCWD, os.fsencode(path), AT_RECURSIVE, ctypes.addressof(args), size, about=path
    )


def mount_over(kind: str, source: str, target: str, options: str) -> None:
    """Mount by mount(2): for file systems whose options fsconfig cannot carry on older kernels."""
    _mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), 0, os.fsencode(options), about=kind
    )


def enter_root(root_fd: int) -> None:
    """Make the placed mount at ``root_fd`` this namespace's root and let go of the old one.

    Afterwards the working directory and "/" are the new root, and nothing of the old tree is
    reachable but through descriptors opened before. The old tree must be private.

    Privileges: CAP_SYS_ADMIN in the mount namespace's owner.
    """
    os.fchdir(root_fd)
    _pivot_root(b".", b".")  # the old root is now mounted over the new one, at "."
    _umount2(b".", MNT_DETACH)
    os.chdir("/")


def unmount(path: str, *, detach: bool = False) -> None:
    """Unmount what is at ``path``."""
    _umount2(os.fsencode(path), MNT_DETACH if detach else 0, about=path)


def fits_in_context(value: str) -> bool:
    """Say whether ``value`` can be given to fsconfig(2) as one string."""
    return len(os.fsencode(value)) <= _VALUE_LIMIT


def fits_in_page(options: str) -> bool:
    """Say whether mount(2) takes ``options`` whole: it copies at most a page, with the NUL."""
    return len(os.fsencode(options)) < _PAGE_BYTES


def _set_options(context_fd: int, kind: str, options: Iterable[tuple[str, str | None]]) -> None:
    for key, value in options:
        command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
        _configure(context_fd, command, kind, key, value)


def _configure(
    context_fd: int, command: int, kind: str, key: str | None, value: str | None
) -> None:
    raw_key = key.encode() if key is not None else None
    raw_value = os.fsencode(value) if value is not None else None
    about = f"{kind} {key}={value}" if value is not None else f"{kind} {key or ''}".rstrip()
    try:
        _fsconfig(context_fd, command, raw_key, raw_value, 0, about=about)
    except KernelError as error:
        code = error.errno or errno.EIO
        raise KernelError(code, error.step, _explanation(context_fd)) from None


def _explanation(context_fd: int) -> str:
    """Read the messages the kernel left in the context: "e overlay: Unknown parameter"."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(context_fd, 1024)
        except OSError:
            return ", ".join(lines)
        lines.append(line[2:].decode(errors="replace").strip())
