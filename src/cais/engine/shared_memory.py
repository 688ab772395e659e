"""The /dev/shm that a container shares (``--ipc shareable``): one file system, of a bounded size.

    <exec-root>/bundles/<id>/shm     a tmpfs while the container runs; its joiners bind it too

A mere directory there would let any of them fill the host (CVE-2024-3056), and --shm-size be a
wish. Spec: HostConfig.ShmSize.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from cais.linux import mount

_NAME = "shm"
_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


def shared_path(bundle: str) -> str:
    """Return where the container of ``bundle`` has what it shares."""
    return f"{bundle}/{_NAME}"


def provide(bundle: str, size_bytes: int, owner: tuple[int, int] = (0, 0)) -> str:
    """Make it anew, empty, for a container about to start; return its path. Blocks.

    Args:
        bundle: the container's.
        size_bytes: of all that may be in it.
        owner: the container's root, a user and a group of the host.

    Privileges: CAP_SYS_ADMIN.

    """
    path = shared_path(bundle)
    _release(path)
    os.makedirs(path, exist_ok=True)  # noqa: PTH103 - hot path
    ids = (("uid", str(owner[0])), ("gid", str(owner[1])))
    options = (("size", str(size_bytes)), ("mode", "1777"), *ids)
    tree_fd = mount.new_mount("tmpfs", options, _ATTRIBUTES, _NAME)
    try:
        mount.place_at(tree_fd, path)
    finally:
        os.close(tree_fd)
    return path


def remove_bundle(bundle: str) -> None:
    """Remove a bundle, with what its container shared; who has joined keeps that. Blocks."""
    _release(shared_path(bundle))
    shutil.rmtree(bundle, ignore_errors=True)


def _release(path: str) -> None:
    with contextlib.suppress(OSError):  # nothing is mounted there: nothing is shared
        mount.unmount(path, detach=True)
