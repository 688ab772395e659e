"""A container's first process, from the clone to being in all its namespaces.

New ones it has by its birth, but for three: a cgroup namespace, whose root is the group it has
joined by then; a time namespace, whose clocks are set before anybody is in it; and all of them
where the user namespace is another's, because they must belong to that one. There

    parent ── clone3 ──▶ this process, in the host's namespaces: joins the user namespace
                          └─ clone ─▶ with a new pid namespace: goes on as a child of the parent,
                                      who was told its pid, and the first one ends

Spec: OCI runtime-spec 1.2, config-linux.md "Namespaces"; setns(2), time_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from cais.linux import cgroups, namespaces, process
from cais.linux.syscalls import KernelError
from cais.runtime import settle, standing
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.channel import Channel
    from cais.runtime.child import Inheritance
    from cais.runtime.plan import ContainerPlan

# Joined last: what is looked up by a path, and who is seen there, changes with these.
_WITH_ROOT = (namespaces.CLONE_NEWPID, namespaces.CLONE_NEWNS)
_LATE = namespaces.CLONE_NEWCGROUP | namespaces.CLONE_NEWTIME


def flags_at_birth(plan: ContainerPlan) -> int:
    """Return the CLONE_NEW* for the parent's clone3."""
    return 0 if plan.user_path else plan.new & ~_LATE


def is_born_twice(plan: ContainerPlan) -> bool:
    """Say whether the container's process is a second one, which the first tells the parent of."""
    return bool(plan.user_path and plan.new & namespaces.CLONE_NEWPID)


def enter(plan: ContainerPlan, line: Channel, given: Inheritance) -> None:
    """Be in the control group and every namespace of the plan, as their root.

    But for a pid namespace that a later process is born in: nothing else shall be cloned into it.
    """
    cgroups.join(given.cgroup_fds)
    if plan.has_user_namespace:
        line.wait_for_word()  # the parent has written the identity maps
        process.set_dumpable(dumpable=False)  # the child of an ordinary user had to be, until here
        become_root()
    else:
        warning = settle.adjust_oom_score(plan.process.oom_score_adj)
        if warning:
            line.send({"warning": warning})
    if given.user_fd >= 0:
        _enter_user_namespace(plan, line, given)
    elif plan.new & namespaces.CLONE_NEWTIME:
        _enter_new_time(plan, _open_time_offsets(dumpable=plan.has_user_namespace))
    for fd, flag in given.namespace_fds:
        if fd != given.pid_namespace_fd:
            namespaces.join(fd, flag)
            os.close(fd)
    if plan.new & namespaces.CLONE_NEWCGROUP:
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    os.setsid()
    if given.has_own_keyring:
        namespaces.join_session_keyring()
    if plan.host_name:
        namespaces.set_host_name(plan.host_name)
    if plan.domain_name:
        namespaces.set_domain_name(plan.domain_name)
    if plan.new & namespaces.CLONE_NEWNET:
        namespaces.bring_loopback_up()
    if plan.net_devices:
        line.send({"network": True})
        line.wait_for_word()


def become_root() -> None:
    """Be the user and group 0 of this user namespace, who may do everything in it."""
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        reason = "user namespace: the mappings have no user 0 or no group 0"
        raise LaunchError(reason, errno=error.errno or 0, step="setresuid") from None


def _open_time_offsets(*, dumpable: bool) -> int:
    """Open the file of the offsets, root's of the host while this process is not dumpable.

    It may be so for a moment only where nobody else is: on the host, or root of a new user
    namespace. The root of one that is joined could trace it.
    """
    process.set_dumpable(dumpable=dumpable)
    try:
        return namespaces.open_time_offsets()
    finally:
        process.set_dumpable(dumpable=False)


def _enter_new_time(plan: ContainerPlan, offsets_fd: int) -> None:
    namespaces.enter_new_time(plan.time_offsets, offsets_fd)
    os.close(offsets_fd)


def _enter_user_namespace(plan: ContainerPlan, line: Channel, given: Inheritance) -> None:
    has_time = bool(plan.new & namespaces.CLONE_NEWTIME)
    offsets_fd = _open_time_offsets(dumpable=standing.is_ordinary_user()) if has_time else -1
    _join_foreign_namespaces(given)
    namespaces.join(given.user_fd, namespaces.CLONE_NEWUSER)
    os.close(given.user_fd)
    become_root()
    if has_time:
        _enter_new_time(plan, offsets_fd)
    new = plan.new & ~_LATE
    if is_born_twice(plan):
        assert given.birth is not None
        pid = given.birth.clone_sibling(new)
        if pid:
            line.say({"process": pid})
            os._exit(0)
        line.wait_for_word()
    elif new:
        namespaces.unshare(new)


def _join_foreign_namespaces(given: Inheritance) -> None:
    """Join what does not belong to the user namespace, which its root could not."""
    later = []
    for fd, flag in given.namespace_fds:
        if flag in _WITH_ROOT or not _could_join(fd, flag):
            later.append((fd, flag))
        else:
            os.close(fd)
    given.namespace_fds = later


def _could_join(fd: int, flag: int) -> bool:
    try:
        namespaces.join(fd, flag)
    except KernelError as error:
        if error.errno != errno.EPERM:
            raise
        return False
    return True
