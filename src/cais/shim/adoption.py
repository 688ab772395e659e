"""Processes this shim did not start: containers that outlived the shim that did.

They are watched by pidfd. Somebody else reaps them, so their exit status can be asked of the
kernel only since Linux 6.15, and only after that.

Spec: pidfd_open(2), ioctl_pidfd(2) (PIDFD_GET_INFO: Linux 6.13, PIDFD_INFO_EXIT: 6.15).
"""

from __future__ import annotations

import fcntl
import os
import struct

from cais.errors import NotFoundError
from cais.linux.process import start_ticks

_INFO_SIZE = 64  # struct pidfd_info, its first version: mask .. exit_code
_PIDFD_GET_INFO = 3 << 30 | _INFO_SIZE << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3
_EXIT_CODE_OFFSET = 60


def open_process(pid: int, ticks: int) -> int:
    """Return a pidfd of the process ``pid`` started at ``ticks``; the caller closes it.

    Raises:
        NotFoundError: it is no more, or the pid is another's by now.

    """
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, OverflowError) as exc:
        raise NotFoundError(f"process {pid} is no more") from exc
    try:
        # Read after the pidfd exists: the pid cannot be reused between a match and its use.
        is_same = start_ticks(pid) == ticks
    except OSError:
        is_same = False
    if not is_same:
        os.close(pidfd)
        raise NotFoundError(f"process {pid} is not the one that was started")
    return pidfd


def exit_status(pidfd: int) -> int | None:
    """Return the wait status of a process that ended; None: not reaped yet, or an older kernel."""
    info = bytearray(_INFO_SIZE)
    struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    (mask,) = struct.unpack_from("Q", info, 0)
    if not mask & _PIDFD_INFO_EXIT:
        return None
    (status,) = struct.unpack_from("i", info, _EXIT_CODE_OFFSET)
    return int(status)
