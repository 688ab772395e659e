"""Room that is kept for the day when a disk is full, so that a daemon can start and make room.

::

    <data-root>/reserve/blocks   a MiB
    <data-root>/reserve/<n>      empty: an inode each

SQLite makes two files for each database that is opened. On a disk that was filled while no daemon
ran there would be no way to remove a thing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_BLOCKS_BYTES = 1 << 20
_INODES = 24
_PLENTY = 16
"""Times as much must be free before anything is reserved."""


def release(place: Path) -> None:
    """Give the reserve up if the disk is about full. Blocks."""
    free_bytes, free_inodes = _free(place.parent)
    if free_bytes < _BLOCKS_BYTES or free_inodes < _INODES:
        if place.exists():
            log.warning("%s is full: using what was reserved to start", place.parent)
        shutil.rmtree(place, ignore_errors=True)


def fill(place: Path) -> None:
    """Have a reserve if there is plenty of room. Blocks."""
    free_bytes, free_inodes = _free(place.parent)
    has_room = free_bytes > _PLENTY * _BLOCKS_BYTES and free_inodes > _PLENTY * _INODES
    if place.exists() or not has_room:
        return
    with contextlib.suppress(OSError):  # somebody else was faster: next time
        place.mkdir(0o700)
        for number in range(_INODES):
            (place / str(number)).touch(0o600)
        fd = os.open(place / "blocks", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _BLOCKS_BYTES)
        finally:
            os.close(fd)


def _free(directory: Path) -> tuple[int, int]:
    """Return the bytes and the inodes that are free; a file system without a number has plenty."""
    facts = os.statvfs(directory)
    inodes = facts.f_favail if facts.f_files else _PLENTY * _INODES + 1
    return facts.f_bavail * facts.f_frsize, inodes
