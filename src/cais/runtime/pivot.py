"""Leave the host's tree: a mount namespace of one's own gets a new root.

A new mount namespace is a copy of the caller's, and of all of it: the engine may itself run in a
chroot (a rescue system, a build environment), and what lies outside is copied too. It would still
be there after a pivot_root inside the chroot, for whoever enters the namespace (setns(2) begins
at its root) or climbs out of a chroot of his own. So both steps here act on the namespace's root.
"""

from __future__ import annotations

import os

from cais.linux import mount, namespaces


def cut_propagation() -> None:
    """Make every mount of this namespace private: nothing done here reaches the host's.

    "/" stays what it is, so that the engine's paths keep their meaning; the working directory
    becomes "/".
    """
    engine_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        namespaces.leave_chroot()
        mount.set_tree_propagation("/", mount.MS_PRIVATE)
        os.fchdir(engine_fd)
        os.chroot(".")
    finally:
        os.close(engine_fd)


def enter(root_fd: int, *, pivots: bool = True) -> None:
    """Make the mount at ``root_fd`` the root of the namespace and of this process.

    Args:
        root_fd: a detached mount, or one that is somewhere in the tree. Borrowed.
        pivots: false where the root is an initramfs, which pivot_root(2) refuses: the mount then
            covers it, and who may chroot can climb out to it.

    """
    namespaces.leave_chroot()
    mount.place_at(root_fd, "/")
    if pivots:
        mount.enter_root(root_fd)
    else:
        os.fchdir(root_fd)
        os.chroot(".")
