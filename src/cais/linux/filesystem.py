"""Whole file systems and trees: making them durable, removing them.

Spec: syncfs(2); sync_file_range(2); unlinkat(2); renameat(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

from cais.linux.syscalls import KernelError

_libc = ctypes.CDLL(None, use_errno=True)
_BATCH = 4096
_SYNC_FILE_RANGE_WRITE = 2
_SUBVOLUME_INODE = 256  # of the top of each, on btrfs; elsewhere of anything


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


def start_writing(fd: int, offset: int, length: int) -> None:
    """Let the disk begin with a part of a file, without waiting: a later fsync(2) has less to do.

    It promises nothing, and says nothing of failures: fsync(2) will.
    """
    _libc.sync_file_range(
        fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE
    )


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
        if not _was_subvolume(parent_fd, name):
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
                if _was_subvolume(directory_fd, child):
                    continue
                aside = f".remove-{os.fstat(directory_fd).st_ino:x}-{serial:x}"
                serial += 1
                os.rename(child, aside, src_dir_fd=directory_fd, dst_dir_fd=parent_fd)
                moved.append(aside)
        finally:
            os.close(directory_fd)
        os.rmdir(pending.pop(), dir_fd=parent_fd)
        pending += moved


def _was_subvolume(parent_fd: int, name: str) -> bool:
    """Delete the directory at once if it is a subvolume of btrfs: nothing can be moved out of it.

    Anybody may make one where he may make directories.
    """
    if os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_ino != _SUBVOLUME_INODE:
        return False
    # Only here: the parts of the engine that start containers never need it.
    from cais.linux import btrfs

    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        is_subvolume = btrfs.is_subvolume(fd)
        if is_subvolume:
            btrfs.delete_subvolume(fd)
        return is_subvolume
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
