"""Whole file systems and trees: making them durable, removing them.

Spec: syncfs(2); unlinkat(2); renameat(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

from cais.linux.syscalls import KernelError

_libc = ctypes.CDLL(None, use_errno=True)
_BATCH = 4096


def sync_filesystem(fd: int) -> None:
    """Write everything of the file system that ``fd`` lies on to its disk.

    Blocks: until it is there.

    Raises:
        KernelError: EIO, ENOSPC, EDQUOT (Linux 5.8): something was lost.

    """
    while _libc.syncfs(fd) < 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise KernelError(code, "syncfs")


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove ``name`` in the directory, whatever it is; nothing is followed. Absent is fine.

    A container may nest directories deeper than any stack or PATH_MAX: a subdirectory that is
    not empty moves up beside ``name`` and takes its turn, so depth costs nothing and one
    descriptor is enough. When this fails half way, ``.remove-*`` siblings can be left.

    Raises:
        OSError: EPERM (an immutable file), EBUSY (a mount point), EIO.

    """
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        _remove_directory(parent_fd, name)


def _remove_directory(parent_fd: int, name: str) -> None:
    pending = [name]
    serial = 0
    while pending:
        directory_fd = os.open(
            pending[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd
        )
        try:
            moved = []
            for child in _subdirectories_after_unlinking(directory_fd):
                aside = f".remove-{os.fstat(directory_fd).st_ino:x}-{serial:x}"
                serial += 1
                try:
                    os.rename(child, aside, src_dir_fd=directory_fd, dst_dir_fd=parent_fd)
                    moved.append(aside)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    _delete_subvolume(directory_fd, child)
        finally:
            os.close(directory_fd)
        os.rmdir(pending.pop(), dir_fd=parent_fd)
        pending += moved


def _delete_subvolume(parent_fd: int, name: str) -> None:
    """Delete what cannot be moved because it is a file system of its own, of btrfs."""
    # Only here: a container on a copy of its image made it.
    from cais.linux import btrfs

    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        btrfs.delete_subvolume(fd)
    finally:
        os.close(fd)


def _subdirectories_after_unlinking(directory_fd: int) -> list[str]:
    """Unlink what is no directory and remove empty ones; return the names of the rest."""
    kept: set[str] = set()
    while True:
        batch = []
        with os.scandir(directory_fd) as entries:
            for entry in entries:
                if entry.name not in kept:
                    batch.append((entry.name, entry.is_dir(follow_symlinks=False)))
                if len(batch) == _BATCH:
                    break  # names are not collected without bound
        if not batch:
            return sorted(kept)
        for name, is_directory in batch:
            if not is_directory:
                os.unlink(name, dir_fd=directory_fd)
                continue
            try:
                os.rmdir(name, dir_fd=directory_fd)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                kept.add(name)
