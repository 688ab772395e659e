"""A proc file system of a pid namespace that the maker of the mount is not in.

Since Linux 6.18 an option names the namespace. Before, proc shows the namespace of whoever opens
its context: a process born inside for that one call, while all else is prepared outside. Who is
inside already may have CAP_SYS_PTRACE and make it do what they like (CVE-2016-9962), so there is
nothing to be had of it, from its birth on:

    maker ── clone ──▶ one in the maker's pid namespace: an empty root, no descriptor but the
                │      line, no capability but CAP_SYS_ADMIN, a filter of a few calls; then it
                │      joins the other namespace's future children
                └─ clone ─▶ one born inside: fsopen, and the context over the line

Spec: fsopen(2), pid_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from cais.linux import credentials, mount, namespaces, paths, process
from cais.linux.seccomp import allow_list, load
from cais.linux.syscalls import KernelError
from cais.runtime.channel import ask_child

_EMPTY = (("nr_inodes", "1"), ("mode", "0555"))
_NEEDED = credentials.BITS["CAP_SYS_ADMIN"]  # for fsopen, in the mount namespace's owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cais.runtime.channel import Channel
    from cais.runtime.mounts import MountPlan


def knows_option() -> bool:
    """Say whether this kernel's proc takes the namespace as an option."""
    return mount.knows_option("proc", "pidns", "/proc/self/ns/pid")


def new_mount(entry: MountPlan, pid_namespace_fd: int) -> int:
    """Return ``entry``, a detached mount, of the namespace open at ``pid_namespace_fd`` (borrowed).

    The caller must not have joined it.
    """
    context_fd = _open_context(pid_namespace_fd)
    try:
        attributes = entry.set | entry.deep_set
        mount_fd = mount.finish(context_fd, "proc", entry.options, attributes, entry.source)
    finally:
        os.close(context_fd)
    if paths.filesystem_type(mount_fd) != paths.PROC_SUPER_MAGIC:
        raise KernelError(
            errno.EPERM, "fsopen proc", "a process inside has put another in its place"
        )
    return mount_fd


def compile_filter() -> bytes:
    """Return the filter of who is born inside, and of who clones it."""
    return allow_list.assemble(("clone", "close", "exit_group", "fsopen", "sendmsg", "waitid"))


def _open_context(pid_namespace_fd: int) -> int:
    def child(line: Channel) -> NoReturn:
        _clone_inside(line, pid_namespace_fd)

    message, context_fd = ask_child(0, child)
    if context_fd < 0:
        code = int(message["errno"]) if message else errno.ESRCH
        raise KernelError(code, "fsopen proc", "in the pid namespace to be joined")
    return context_fd


def _clone_inside(line: Channel, pid_namespace_fd: int) -> NoReturn:
    try:
        process.close_all_but([line.fileno(), pid_namespace_fd])
        program = compile_filter()
        _empty_root()
        namespaces.join(pid_namespace_fd, namespaces.CLONE_NEWPID)
        os.close(pid_namespace_fd)
        credentials.set_capabilities(permitted=_NEEDED, effective=_NEEDED, inheritable=0)
        load(program)
        pid, pidfd = process.fork()
        if pid == 0:
            line.send({}, mount.open_context("proc"))
        else:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except OSError as error:
        line.send({"errno": error.errno or 0})
    finally:
        os._exit(0)


def _empty_root() -> None:
    """Have an empty directory as root and working directory, which is what /proc would show."""
    empty_fd = mount.new_mount("tmpfs", _EMPTY, mount.MOUNT_ATTR_RDONLY)
    os.fchdir(empty_fd)
    os.chroot(".")
    os.close(empty_fd)
