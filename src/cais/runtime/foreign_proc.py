"""A proc file system of a pid namespace that the maker of the mount is not in.

Since Linux 6.18 an option names the namespace. Before, proc shows the namespace of whoever opens
its context: a process born inside for that one call, with an empty directory as its root and
nothing of the host but an empty descriptor table and a channel, while everything else of the
container is prepared outside.

Spec: fsopen(2), pid_namespaces(7).
"""

from __future__ import annotations

import os

from cais.linux import mount, process
from cais.linux.syscalls import KernelError
from cais.runtime.channel import open_channel

_EMPTY = (("nr_inodes", "1"), ("mode", "0555"))

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cais.runtime.channel import Channel
    from cais.runtime.mounts import MountPlan


def knows_option() -> bool:
    """Say whether this kernel's proc takes the namespace as an option."""
    return mount.knows_option("proc", "pidns", "/proc/self/ns/pid")


def new_mount(entry: MountPlan) -> int:
    """Return ``entry``, a detached mount, of the namespace the caller's children are born in."""
    context_fd = _open_context()
    try:
        attributes = entry.set | entry.deep_set
        return mount.finish(context_fd, "proc", entry.options, attributes, entry.source)
    finally:
        os.close(context_fd)


def _open_context() -> int:
    ours, theirs = open_channel()
    try:
        with _EmptyRoot():
            pid, pidfd = process.clone(0)
            if pid == 0:
                _open_and_send(theirs)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        theirs.close()
        message, context_fd = ours.receive(wait=True)
    finally:
        theirs.close()
        ours.close()
    if context_fd < 0:
        code = int(message["errno"]) if message else 0
        raise KernelError(code, "fsopen proc", "in the pid namespace to be joined")
    return context_fd


def _open_and_send(line: Channel) -> NoReturn:
    try:
        process.close_all_but([line.fileno()])
        line.send({}, mount.open_context("proc"))
    except OSError as error:
        line.send({"errno": error.errno or 0})
    finally:
        os._exit(0)


class _EmptyRoot:
    """Have an empty directory as root and working directory for a moment.

    Who is born meanwhile has nothing to show to processes inside that may look at it
    (CAP_SYS_PTRACE): its root would be the host's (CVE-2016-9962).
    """

    __slots__ = ("_home_fd",)

    def __enter__(self) -> None:
        self._home_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        empty_fd = mount.new_mount("tmpfs", _EMPTY, mount.MOUNT_ATTR_RDONLY)
        try:
            os.fchdir(empty_fd)
            os.chroot(".")
        finally:
            os.close(empty_fd)

    def __exit__(self, *_: object) -> None:
        os.fchdir(self._home_fd)
        os.chroot(".")
        os.close(self._home_fd)
