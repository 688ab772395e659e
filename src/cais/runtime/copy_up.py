"""Copying a directory of the image into the tmpfs that will cover it (option ``tmpcopyup``).

The tree is the image's, so nothing in it is followed: every name is opened in the directory that
was listed, without links, and every copy is made where nothing has the name yet.

Spec: OCI runtime-spec 1.2, config.md "Linux mount options", tmpcopyup.
"""

from __future__ import annotations

import errno
import os
import stat

from cais.linux import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import DirEntry

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
_INSIDE = paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS
_PIECE = 1000  # characters: at most 4000 of the 4096 bytes of a path


def copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy what is in one directory into another: contents, owners, modes, times, attributes.

    Sockets are left out: nobody listens behind a copy. Mounts below are copied as what they show.
    However deep the tree is, four descriptors are open at once.

    Args:
        source_fd: a directory; O_PATH will do. Borrowed.
        target_fd: a directory, the root of a new file system. Borrowed.

    Raises:
        OSError: the copy does not fit, or is not allowed; what was copied so far stays.

    """
    found = ["."]
    for place in found:  # it grows meanwhile
        with _Directory(source_fd, place) as from_fd, _Directory(target_fd, place) as into_fd:
            found += [f"{place}/{name}" for name in _copy_entries(from_fd, into_fd)]
    for place in reversed(found[1:]):  # from below: a copy changes the times of what it is in
        with _Directory(source_fd, place) as from_fd, _Directory(target_fd, place) as into_fd:
            _copy_metadata(from_fd, into_fd)


class _Directory:
    """A directory below another, open for a while; no link leads to it, whoever changes the tree.

    Its path may be longer than the kernel takes: it is opened in pieces.
    """

    __slots__ = ("_base_fd", "_fd", "_path")

    def __init__(self, base_fd: int, path: str) -> None:
        self._base_fd = base_fd
        self._path = path
        self._fd = -1

    def __enter__(self) -> int:
        self._fd = self._base_fd
        path = self._path
        while path:
            end = len(path) if len(path) <= _PIECE else path.rindex("/", 0, _PIECE)
            piece, path = path[:end], path[end:].lstrip("/")
            flags = os.O_RDONLY | os.O_DIRECTORY
            fd = paths.open_at(self._fd, piece, flags, resolve=_INSIDE)
            self._close()
            self._fd = fd
        return self._fd

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd != self._base_fd:
            os.close(self._fd)


def _copy_entries(from_fd: int, into_fd: int) -> list[str]:
    """Copy what is no directory, and make those that are; return their names."""
    directories = []
    with os.scandir(from_fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                os.mkdir(entry.name, 0o700, dir_fd=into_fd)
                directories.append(entry.name)
            else:
                _copy_entry(entry, from_fd, into_fd)
    return directories


def _copy_entry(entry: DirEntry[str], from_fd: int, into_fd: int) -> None:
    name, status = entry.name, entry.stat(follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(name, from_fd, into_fd)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=from_fd), name, dir_fd=into_fd)
        _own(name, status, into_fd)
    elif kind != stat.S_IFSOCK:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=into_fd)
        _own(name, status, into_fd)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=into_fd)


def _copy_file(name: str, from_fd: int, into_fd: int) -> None:
    file_fd = os.open(name, _OPEN, dir_fd=from_fd)
    try:
        if not stat.S_ISREG(os.fstat(file_fd).st_mode):
            raise OSError(errno.ESTALE, f"{name} changed while it was copied")
        copy_fd = os.open(name, _CREATE, 0o600, dir_fd=into_fd)
        try:
            while os.sendfile(copy_fd, file_fd, None, _CHUNK_BYTES):
                continue
            _copy_metadata(file_fd, copy_fd)
        finally:
            os.close(copy_fd)
    finally:
        os.close(file_fd)


def _copy_metadata(from_fd: int, into_fd: int) -> None:
    status = os.fstat(from_fd)
    os.fchown(into_fd, status.st_uid, status.st_gid)
    for name in os.listxattr(from_fd):
        _copy_attribute(name, from_fd, into_fd)
    os.fchmod(into_fd, stat.S_IMODE(status.st_mode))
    os.utime(into_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_attribute(name: str, from_fd: int, into_fd: int) -> None:
    try:
        os.setxattr(into_fd, name, os.getxattr(from_fd, name))
    except OSError as error:
        # Those of the layer's file system mean nothing here; not every tmpfs knows user.*.
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA, errno.EINVAL):
            raise


def _own(name: str, status: os.stat_result, into_fd: int) -> None:
    os.chown(name, status.st_uid, status.st_gid, dir_fd=into_fd, follow_symlinks=False)
