"""The file system below the snapshots.

Spec: linux/magic.h.
"""

from __future__ import annotations

import os

from cais.linux.btrfs import SUPER_MAGIC as BTRFS
from cais.linux.paths import filesystem_type

_NAMES = {  # Docker's
    0xEF53: "extfs",
    0x58465342: "xfs",
    BTRFS: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    0x6969: "nfs",
    0x65735546: "fuse",
    0x858458F6: "ramfs",
}


def describe_backing(path: str) -> str:
    """Return what Docker calls the file system that ``path`` lies on; "<unknown>" as well."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _NAMES.get(filesystem_type(fd), "<unknown>")
    finally:
        os.close(fd)
