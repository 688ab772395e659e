"""Pseudo-terminals of a devpts instance that somebody else controls.

The peer is opened through the master (TIOCGPTPEER), never by a path: a path below the
container's /dev/pts is the container's to choose (CVE-2025-52565).

Spec: pts(4), ioctl_tty(2) (TIOCGPTPEER: Linux 4.13).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from cais.linux import paths
from cais.linux.syscalls import KernelError

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
DEVPTS_SUPER_MAGIC = 0x1CD1
_PTMX_DEVICE = os.makedev(5, 2)


def open_pair(pts_fd: int) -> tuple[int, int]:
    """Open a new terminal of the devpts file system whose root is ``pts_fd``.

    Returns:
        (master, slave), both owned, close-on-exec, and no controlling terminal of anybody.

    Raises:
        KernelError: ENOTTY, the directory is no devpts root; ENOSPC, no terminal left.

    """
    master_fd = paths.open_at(
        pts_fd,
        "ptmx",
        os.O_RDWR | os.O_NOCTTY,
        resolve=paths.RESOLVE_BENEATH | paths.RESOLVE_NO_SYMLINKS | paths.RESOLVE_NO_XDEV,
    )
    try:
        _check_multiplexer(master_fd)
        fcntl.ioctl(master_fd, TIOCSPTLCK, struct.pack("i", 0))
        slave_fd = fcntl.ioctl(master_fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master_fd)
        raise
    return master_fd, slave_fd


def _check_multiplexer(fd: int) -> None:
    if os.fstat(fd).st_rdev != _PTMX_DEVICE:
        raise KernelError(errno.ENOTTY, "open ptmx", "not a terminal multiplexer")


def check_devpts(fd: int) -> None:
    """Make sure that the directory is one of a devpts file system. KernelError: ENOTTY."""
    if paths.filesystem_type(fd) != DEVPTS_SUPER_MAGIC:
        raise KernelError(errno.ENOTTY, "open /dev/pts", "no devpts file system")


def set_size(fd: int, height: int, width: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH when it changes."""
    fcntl.ioctl(fd, TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


def make_controlling(fd: int) -> None:
    """Make ``fd`` the controlling terminal of this session, whose leader is the caller."""
    fcntl.ioctl(fd, TIOCSCTTY, 0)
