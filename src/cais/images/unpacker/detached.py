"""What a worker is handed: files and directories as mounts of their own, which lead nowhere else.

A descriptor of a directory leads, by ``..``, to all of the mount it lies on. So each is first made
the root of a mount that nobody sees (open_tree(2)); it goes with the last descriptor into it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from cais.linux import mount

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import ExitStack

log = logging.getLogger(__name__)

HARMLESS = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
READ_ONLY = HARMLESS | mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOATIME
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_told: set[str] = set()


def open_tree(path: str, attributes: int, stack: ExitStack) -> int:
    """Open a directory as the root of a mount of its own, or as it is where that is refused.

    Args:
        path: of the directory.
        attributes: MOUNT_ATTR_* of the mount.
        stack: closes the descriptor.

    """
    try:
        mount_fd = mount.clone_tree(path)
        try:
            mount.set_attributes(mount_fd, set_bits=attributes)
            fd = os.open(".", _DIRECTORY, dir_fd=mount_fd)
        finally:
            os.close(mount_fd)
    except OSError as exc:
        warn([f"a mount of its own for each directory ({os.strerror(exc.errno or 0)})"])
        fd = os.open(path, _DIRECTORY)
    stack.callback(os.close, fd)
    return fd


def open_read_only(file_fd: int, stack: ExitStack) -> int:
    """Open a file anew, by a read-only mount: not even its mode can be changed by the result.

    Args:
        file_fd: a regular file. Borrowed; it is the result where mounts are refused.
        stack: closes the descriptor.

    """
    try:
        mount_fd = mount.clone_tree("", dir_fd=file_fd)
        try:
            mount.set_attributes(mount_fd, set_bits=READ_ONLY)
            fd = os.open(f"/proc/self/fd/{mount_fd}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(mount_fd)
    except OSError as exc:
        warn([f"a read-only mount for the archive ({os.strerror(exc.errno or 0)})"])
        return file_fd
    stack.callback(os.close, fd)
    return fd


def warn(measures: Iterable[str]) -> None:
    """Log, once, what does not confine workers on this host."""
    new = set(measures) - _told
    if new:
        _told.update(new)
        log.warning("layers are unpacked without: %s", "; ".join(sorted(new)))
