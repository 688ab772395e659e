"""The content of one file into another: shared where the file system can, holes kept.

Spec: ioctl_ficlone(2), copy_file_range(2), lseek(2) SEEK_DATA and SEEK_HOLE.
"""

from __future__ import annotations

import errno
import fcntl
import os

_FICLONE = 0x40049409
_CHUNK_BYTES = 1 << 30
_CANNOT_SHARE = frozenset(
    {
        *(errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS),
        *(errno.EPERM, errno.ETXTBSY, errno.EBADF),
    }
)
_CANNOT_COPY_RANGE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS})


def copy_data(from_fd: int, to_fd: int) -> None:
    """Give the empty file ``to_fd`` what ``from_fd`` holds: extents shared, or copied, or holes.

    Neither descriptor's position matters before or is defined after.

    Raises:
        OSError: ENOSPC, EDQUOT, EIO.

    Blocks: for as long as the copy takes.

    """
    if _share(from_fd, to_fd):
        return
    size = os.fstat(from_fd).st_size
    position = 0
    while position < size:
        start, end = _next_extent(from_fd, position, size)
        if start >= size:
            break
        _copy_range(from_fd, to_fd, start, end)
        position = end
    os.ftruncate(to_fd, size)  # a hole at the end


def _share(from_fd: int, to_fd: int) -> bool:
    try:
        fcntl.ioctl(to_fd, _FICLONE, from_fd)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def _next_extent(fd: int, position: int, size: int) -> tuple[int, int]:
    """Return where data begins and ends at or after ``position``; (size, size): only a hole."""
    try:
        start = os.lseek(fd, position, os.SEEK_DATA)
        return start, os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno != errno.EINVAL:
            raise
    return position, size  # a file system that does not tell


def _copy_range(from_fd: int, to_fd: int, start: int, end: int) -> None:
    try:
        while start < end:
            count = min(_CHUNK_BYTES, end - start)
            copied = os.copy_file_range(from_fd, to_fd, count, start, start)
            if copied == 0:
                return  # it became shorter
            start += copied
    except OSError as error:
        if error.errno not in _CANNOT_COPY_RANGE:
            raise
        os.lseek(to_fd, start, os.SEEK_SET)
        _send_range(from_fd, to_fd, start, end)


def _send_range(from_fd: int, to_fd: int, start: int, end: int) -> None:
    while start < end:
        copied = os.sendfile(to_fd, from_fd, start, min(_CHUNK_BYTES, end - start))
        if copied == 0:
            return
        start += copied
