"""Whiteouts: nodes of a layer that hide a name of the layers below.

To overlayfs it is a character device 0:0. A file system that is an overlay itself makes none, for
it would be one of its own: there a device stands for it that no driver has, the last number of
the last major. No overlay is mounted over an overlay's upper directory, so the kernel never sees
it.

Spec: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"; mknod(2).
"""

from __future__ import annotations

import errno
import os
import stat

_KERNELS = os.makedev(0, 0)
_STAND_IN = os.makedev(0xFFF, 0xFFFFF)
DEVICES = frozenset({_KERNELS, _STAND_IN})
"""Numbers that no archive may give a node of its own."""


def make_whiteout(parent_fd: int, name: str) -> None:
    """Hide ``name`` of the layers below; it is free in this one. OSError: as mknod(2)."""
    try:
        os.mknod(name, stat.S_IFCHR, _KERNELS, dir_fd=parent_fd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        os.mknod(name, stat.S_IFCHR, _STAND_IN, dir_fd=parent_fd)


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether the node of this lstat(2) hides a name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev in DEVICES
