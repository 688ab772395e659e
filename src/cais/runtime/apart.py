"""Mounts that stay in a mount namespace of one's own, below a directory the host has too."""

from __future__ import annotations

import os

from cais.linux import mount

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def keep_mounts_here(path: str) -> None:
    """Let what is mounted below ``path`` stay in this namespace; what others mount still comes in.

    Only the mount that holds ``path`` changes: the bind sources of a container, which are elsewhere
    as a rule, keep their peers, which ``rshared`` and ``rslave`` need.
    """
    root_fd = _mount_root(path)
    mount.set_attributes(root_fd, propagation=mount.MS_SLAVE)
    os.close(root_fd)


def _mount_root(path: str) -> int:
    """Return the top directory of the mount that holds ``path``."""
    fd = os.open(path, _PLACE)
    while True:
        parent_fd = os.open("..", _PLACE, dir_fd=fd)
        is_root = os.path.samestat(os.fstat(parent_fd), os.fstat(fd))
        if is_root or _mount_id(parent_fd) != _mount_id(fd):
            os.close(parent_fd)
            return fd
        os.close(fd)
        fd = parent_fd


def _mount_id(fd: int) -> bytes:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))
