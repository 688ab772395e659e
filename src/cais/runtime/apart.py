"""Mounts that stay in a mount namespace of one's own, below a directory the host has too."""

from __future__ import annotations

import errno
import os

from cais.linux import mount, namespaces, process
from cais.linux.syscalls import KernelError
from cais.runtime import pivot
from cais.runtime.channel import ask_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from cais.runtime.channel import Channel

_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def keep_mounts_here(path: str) -> None:
    """Let what is mounted below ``path`` stay in this namespace; what others mount still comes in.

    Only the mount that holds ``path`` changes: the bind sources of a container, which are elsewhere
    as a rule, keep their peers, which ``rshared`` and ``rslave`` need.
    """
    root_fd = _mount_root(path)
    mount.set_attributes(root_fd, propagation=mount.MS_SLAVE)
    os.close(root_fd)


def make_tree(make: Callable[[], int], kept: Sequence[int]) -> int:
    """Return the detached mount that ``make`` returns in a process of its own; it is owned.

    That process has a copy of the caller's mounts, of which the host sees nothing, and which goes
    with it: also when the caller is killed meanwhile.

    Args:
        make: may mount what it likes.
        kept: the descriptors that it needs; -1 is none.

    Raises:
        KernelError: what ``make`` raised; EIO, it ended without a word.

    Blocks: until ``make`` has returned.

    """

    def child(line: Channel) -> NoReturn:
        _make_and_send(make, line, kept)

    message, tree_fd = ask_child(namespaces.CLONE_NEWNS, child)
    if tree_fd < 0:
        failure = message or {"errno": errno.EIO, "step": "mount"}
        raise KernelError(failure["errno"], failure["step"], "in a mount namespace of its own")
    return tree_fd


def _make_and_send(make: Callable[[], int], line: Channel, kept: Sequence[int]) -> NoReturn:
    try:
        process.close_all_but([0, 1, 2, line.fileno(), *(fd for fd in kept if fd >= 0)])
        pivot.cut_propagation()
        line.send({}, make())
    except OSError as error:
        step = getattr(error, "step", "mount")
        line.send({"errno": error.errno or errno.EIO, "step": step})
    finally:
        os._exit(0)


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
