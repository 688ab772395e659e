"""What a tree of files takes: as its files say, and as the disk says.

Spec: stat(2): st_blocks counts units of 512 bytes, whatever the file system's block is.
"""

from __future__ import annotations

import os
import stat

from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_at

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_BLOCK_BYTES = 512


def tree_size(root_fd: int) -> tuple[int, int]:
    """Add up a tree that a container may be changing meanwhile.

    A file with several names counts once. What vanishes is left out, and so is what is nested
    deeper than a path can say.

    Args:
        root_fd: its directory. Borrowed.

    Returns:
        The bytes its entries say they have, without the root's own; and the bytes they have on
        the disk with the root's, which is what ``du`` counts.

    """
    apparent, allocated = 0, allocated_size(os.fstat(root_fd))
    linked: set[tuple[int, int]] = set()
    pending = ["."]
    while pending:
        path = pending.pop()
        for name, status in _entries(root_fd, path):
            if stat.S_ISDIR(status.st_mode):
                pending.append(f"{path}/{name}")
            elif status.st_nlink > 1:
                if (key := (status.st_dev, status.st_ino)) in linked:
                    continue
                linked.add(key)
            apparent += status.st_size
            allocated += allocated_size(status)
    return apparent, allocated


def tree_size_at(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Add up the tree at ``path`` as ``tree_size``; one that is not there has nothing."""
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        return tree_size(root_fd)
    finally:
        os.close(root_fd)


def allocated_size(status: os.stat_result) -> int:
    """Return the bytes that one file has on the disk."""
    return status.st_blocks * _BLOCK_BYTES


def _entries(root_fd: int, path: str) -> list[tuple[str, os.stat_result]]:
    found: list[tuple[str, os.stat_result]] = []
    try:
        directory_fd = open_at(root_fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT)
    except OSError:  # gone, or too deep
        return found
    try:
        with os.scandir(directory_fd) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    except OSError:
        return found
    finally:
        os.close(directory_fd)
    return found
