"""Paths inside a directory tree that somebody else controls.

Nothing here takes two looks at a path: the kernel resolves it once, with the tree's root as "/"
(RESOLVE_IN_ROOT), and what follows uses the descriptor. Magic links are never followed. Missing
directories and files are made with *at() calls that refuse an existing name.

Spec: openat2(2) (Linux 5.6).
"""

from __future__ import annotations

import ctypes
import errno
import os

from cais.linux.syscalls import Bytes, KernelError, Long, Pointer, system_call

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
PROC_SUPER_MAGIC = 0x9FA0
_LINK_LIMIT = 40  # the kernel's own (MAXSYMLINKS)
_RACE_LIMIT = 256  # EAGAIN: the tree was renamed while ".." was being looked up


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


_openat2 = system_call("openat2", Long, Bytes, Pointer, Long)
_fstatfs = system_call("fstatfs", Long, Pointer)


def open_at(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open ``path`` below ``dir_fd`` under the RESOLVE_* rules given; the result is owned.

    Raises:
        KernelError: EXDEV and ELOOP besides the usual: the path breaks a rule.

    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    for _ in range(_RACE_LIMIT):
        try:
            return _openat2(
                dir_fd, os.fsencode(path), ctypes.addressof(how), ctypes.sizeof(how), about=path
            )
        except KernelError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise KernelError(errno.EAGAIN, f"openat2 {path}", "the tree keeps changing")


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH, *, follow: bool = True) -> int:
    """Open ``path`` with ``root_fd`` as "/": absolute links and ".." stay inside.

    Args:
        root_fd: the tree. Borrowed.
        path: absolute or relative, the same thing here.
        flags: O_* of the result; O_CLOEXEC is added.
        follow: follow a symbolic link in the last component.

    Raises:
        KernelError: ENOENT, ENOTDIR, ELOOP (a magic link) and as open(2).

    """
    no_follow = 0 if follow else os.O_NOFOLLOW
    return open_at(
        root_fd, path, flags | no_follow, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    )


def ensure_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Open the directory ``path`` in the tree (O_PATH, owned), making what is missing.

    A dangling link on the way is made good inside the tree, as an engine that resolves first and
    creates later does.

    Raises:
        KernelError: ENOTDIR (something else is there), ELOOP, EROFS and as mkdir(2).

    """
    links = 0
    missing: list[str] = []
    fd, path = _open_deepest(root_fd, path, missing)
    while missing:
        name, parent_fd = missing.pop(), fd
        try:
            link = _read_link(parent_fd, name)
            path = os.path.join(path, link or name)
            links += link is not None
            if links > _LINK_LIMIT:
                raise KernelError(errno.ELOOP, f"openat2 {path}")
            if link is not None or name in (".", ".."):  # these: behind what was missing until now
                fd, path = _open_deepest(root_fd, path, missing)
            else:
                fd = _make_and_open(parent_fd, name, mode)
        finally:
            os.close(parent_fd)
    return fd


def ensure_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Open the file ``path`` in the tree (O_PATH), making it empty if missing; the result is owned.

    An existing file of any kind is opened as it is: never truncated, never read, never written.

    Raises:
        KernelError: EISDIR and as open(2).

    """
    for _ in range(_LINK_LIMIT):
        try:
            return open_in_root(root_fd, path)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
        directory, name = os.path.split(path.rstrip("/"))
        parent_fd = ensure_directory(root_fd, directory or "/")
        try:
            link = _read_link(parent_fd, name)
            if link is not None:
                path = os.path.join(directory, link)
                continue
            return create_file(parent_fd, name, mode)
        finally:
            os.close(parent_fd)
    raise KernelError(errno.ELOOP, f"openat2 {path}")


def create_file(parent_fd: int, name: str, mode: int = 0o644) -> int:
    """Make the empty file ``name``, which must not exist, and return it as an O_PATH descriptor."""
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
    os.close(os.open(name, flags, mode, dir_fd=parent_fd))
    return open_at(
        parent_fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    )


def is_directory(fd: int) -> bool:
    """Say whether the open object is a directory."""
    return os.fstat(fd).st_mode & 0o170000 == 0o040000


def _open_deepest(root_fd: int, path: str, missing: list[str]) -> tuple[int, str]:
    """Open the deepest directory of ``path`` that is there; return it (owned) and its path.

    The names below it are appended to ``missing``, the first one last.
    """
    while True:
        try:
            return open_in_root(root_fd, path or "/", os.O_PATH | os.O_DIRECTORY), path
        except KernelError as error:
            if error.errno != errno.ENOENT or not path.rstrip("/"):
                raise
        path, name = os.path.split(path.rstrip("/"))
        missing.append(name)


def _make_and_open(parent_fd: int, name: str, mode: int) -> int:
    _make_directory(parent_fd, name, mode)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    return open_at(parent_fd, name, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def _read_link(parent_fd: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent_fd)
    except OSError:
        return None


def _make_directory(parent_fd: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent_fd)
    except FileExistsError:
        return  # another container sharing this volume was faster; the caller's open decides


def filesystem_type(fd: int) -> int:
    """Return the magic number of the file system an object is on (statfs(2))."""
    buffer = (ctypes.c_long * 32)()  # struct statfs is 15 longs; f_type is the first
    _fstatfs(fd, ctypes.addressof(buffer))
    return int(buffer[0])
