"""Layers stacked by a process, fuse-overlayfs(1), where the kernel's overlayfs cannot.

The mount is made here, detached, and the program is only handed the other end of it: it needs no
mount point, and the host's mount table never shows one. It runs beside the shim, in its control
group, so no process of the container can see, signal or trace it; all that a container has of it
are the file system's requests. It is nobody's to end: when the last mount of the file system goes,
with the container's mount namespace or with a start that failed, the kernel closes the connection
and the program exits. Its own mount namespace never has that mount, or both would last for ever.

Spec: fuse(4), mount.fuse3(8), fuse-overlayfs(1), unshare(1).
"""

from __future__ import annotations

import errno
import os

from cais.linux import mount
from cais.linux.syscalls import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "fuse-overlayfs"
_DEVICE = "/dev/fuse"
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
_PASSED_FD = 3
_REPORT_BYTES = 2048


def new_layer(options: Sequence[tuple[str, str | None]], attributes: int) -> int:
    """Return the stack as a detached mount, owned, that a process of its own serves.

    Args:
        options: fuse-overlayfs's own: ``lowerdir``, ``upperdir``, ``workdir``, ``volatile``.
        attributes: MOUNT_ATTR_* of the mount.

    Raises:
        KernelError: ENOENT, the program is not installed; otherwise with what it said.

    Blocks: until the program has read its options and is in the background.

    """
    fuse_fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        tree_fd = mount.new_mount("fuse", _mount_options(fuse_fd), attributes, KIND)
        try:
            _serve(fuse_fd, options)
        except BaseException:
            os.close(tree_fd)
            raise
    finally:
        os.close(fuse_fd)
    return tree_fd


def _mount_options(fuse_fd: int) -> list[tuple[str, str | None]]:
    return [
        ("fd", str(fuse_fd)),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
        ("allow_other", None),  # every user of the container
        ("default_permissions", None),  # checked by the kernel
        ("subtype", KIND),
    ]


def _serve(fuse_fd: int, options: Sequence[tuple[str, str | None]]) -> None:
    text = ",".join(key if value is None else f"{key}={value}" for key, value in options)
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        passed = [(os.POSIX_SPAWN_DUP2, fuse_fd, _PASSED_FD), (os.POSIX_SPAWN_DUP2, write_fd, 2)]
        if write_fd == _PASSED_FD:  # it would be overwritten before it is copied
            passed.reverse()
        served = [_find(KIND), "-o", text, f"/dev/fd/{_PASSED_FD}"]
        arguments = ["unshare", "--mount", "--propagation", "slave", "--", *served]
        pid = os.posix_spawn(_find("unshare"), arguments, {}, file_actions=passed, setsigmask=())
    finally:
        os.close(write_fd)
    with open(read_fd, "rb") as report:
        _, status = os.waitpid(pid, 0)  # it goes on as a grandchild, whom the shim inherits
        if status:
            said = report.read(_REPORT_BYTES).decode(errors="replace").strip()
            raise KernelError(errno.EIO, KIND, said.replace("\n", ", "))


def _find(name: str) -> str:
    for directory in _PLACES:
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    raise KernelError(errno.ENOENT, name, "it is not installed")
