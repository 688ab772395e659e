"""What hides names of the layers below: whiteouts a name, opaque directories all that is in them.

To overlayfs a whiteout is a character device 0:0 and an opaque directory has an attribute of its
own. A file system that is an overlay itself makes no such device, and takes the attribute since
Linux 6.7 only, for they would be its own: there a device stands for the one that no driver has,
the last number of the last major, and an attribute of ours for the other. No overlay is mounted
over an overlay's upper directory, so the kernel never sees them; nor does it when they are moved to
another file system, as ``snapshots.drivers`` refuses to stack them there.

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

_OPAQUE = "trusted.overlay.opaque"
_OPAQUE_STAND_IN = "trusted.cais.opaque"
_STEERING_ATTRIBUTES = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "trusted.cais.")


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


def make_opaque(directory_fd: int) -> None:
    """Hide what lower layers have in the directory. OSError: as setxattr(2)."""
    try:
        os.setxattr(directory_fd, _OPAQUE, b"y")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        os.setxattr(directory_fd, _OPAQUE_STAND_IN, b"y")


def is_opaque(directory_fd: int) -> bool:
    """Say whether the directory hides what lower layers have in it. OSError: as getxattr(2)."""
    return any(_says_yes(directory_fd, name) for name in (_OPAQUE, _OPAQUE_STAND_IN))


def device_of(status: os.stat_result) -> int:
    """Return the device number of a node by its lstat(2), for every whiteout the kernel's."""
    return _KERNELS if is_whiteout(status) else status.st_rdev


def attribute_meant(name: str) -> str:
    """Return the name of an attribute, of the mark of an opaque directory always the kernel's."""
    return _OPAQUE if name == _OPAQUE_STAND_IN else name


def is_steering_attribute(name: str) -> bool:
    """Say whether an attribute tells how layers add up: of no file, and of no archive.

    fuse-overlayfs has more of its own, ``override_stat`` in other spaces, which it obeys with an
    option that it is never given here; images that bring those keep them.
    """
    return name.startswith(_STEERING_ATTRIBUTES)


def _says_yes(directory_fd: int, attribute: str) -> bool:
    try:
        return os.getxattr(directory_fd, attribute) == b"y"
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise
