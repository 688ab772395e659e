"""One file system object into another directory, with everything that belongs to it."""

import contextlib
import os
import stat
from collections.abc import Callable

from cais.linux.file_data import copy_data
from cais.linux.whiteouts import is_steering_attribute

OwnerOf = Callable[[int, int], tuple[int, int]]
"""From a file's user and group to its copy's."""


def as_they_are(uid: int, gid: int) -> tuple[int, int]:
    """Return the same."""
    return uid, gid


def copy_inode(
    source_fd: int,
    target_fd: int,
    name: str,
    status: os.stat_result,
    owner_of: OwnerOf = as_they_are,
) -> None:
    """Copy ``name``, anything but a directory, from one directory to another.

    Args:
        source_fd: does not change meanwhile. Borrowed, as ``target_fd``.
        status: what lstat(2) says of it.
        owner_of: says whose the copy is.

    Raises:
        FileExistsError: the target has that name.

    """
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(source_fd, target_fd, name, status, owner_of)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
    else:
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=target_fd)
    _copy_attributes_at(source_fd, target_fd, name, status, owner_of)


def copy_attributes(
    source_fd: int, target_fd: int, status: os.stat_result, owner_of: OwnerOf = as_they_are
) -> None:
    """Give an open file or directory the owner, mode, extended attributes and times of another.

    In this order: chown clears set-id bits and file capabilities, and everything sets the times.
    """
    os.fchown(target_fd, *owner_of(status.st_uid, status.st_gid))
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))
    for attribute in attributes_of(source_fd):
        os.setxattr(target_fd, attribute, os.getxattr(source_fd, attribute))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_file(
    source_fd: int, target_fd: int, name: str, status: os.stat_result, owner_of: OwnerOf
) -> None:
    from_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        to_fd = os.open(name, flags, 0o600, dir_fd=target_fd)
        try:
            copy_data(from_fd, to_fd)
            copy_attributes(from_fd, to_fd, status, owner_of)
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)


def _copy_attributes_at(
    source_fd: int, target_fd: int, name: str, status: os.stat_result, owner_of: OwnerOf
) -> None:
    owner = owner_of(status.st_uid, status.st_gid)
    os.chown(name, *owner, dir_fd=target_fd, follow_symlinks=False)
    source, target = f"/proc/self/fd/{source_fd}/{name}", f"/proc/self/fd/{target_fd}/{name}"
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))  # made here: nothing to be followed
    for attribute in attributes_of(source):
        value = os.getxattr(source, attribute, follow_symlinks=False)
        os.setxattr(target, attribute, value, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target_fd, follow_symlinks=False)


def attributes_of(source: int | str) -> list[str]:
    """Return the names of the extended attributes, but those that steer overlayfs.

    Args:
        source: an open file or directory; or a path, whose last component is not followed.

    """
    follow = isinstance(source, int)
    with contextlib.suppress(OSError):
        names = os.listxattr(source, follow_symlinks=follow)
        return [name for name in names if not is_steering_attribute(name)]
    return []
