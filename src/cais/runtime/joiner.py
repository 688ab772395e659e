"""A process exec'd into a running container: two stages, so that no host process is ever inside.

    parent ── clone3 ──▶ stage one   in the host's pid namespace: joins everything else, resolves
                          │          the user, gives up every privilege the program will not have
                          └─ clone ─▶ stage two   born inside the container, a child of the
                                                  parent: new session, execve

What the container's processes can see is stage two alone, and it has nothing to take: no
descriptor and no directory of the host, the program's own credentials and filter, an interpreter
that is a sealed copy, not dumpable (CVE-2016-9962). That holds even where a container has
CAP_SYS_PTRACE, against which being not dumpable does not help.
"""

from __future__ import annotations

import os

from cais.linux import cgroups, namespaces, paths, process, terminal
from cais.runtime import settle
from cais.runtime.child import continue_inside, isolate, report
from cais.runtime.launch import LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from cais.runtime.channel import Channel
    from cais.runtime.child import Inheritance
    from cais.runtime.process_plan import ProcessPlan


def run(
    plan: ProcessPlan,
    line: Channel,
    given: Inheritance,
    target: tuple[int, int],
    ignored: Sequence[int],
) -> NoReturn:
    """Be stage one, then stage two; ends in execve or by exiting.

    Args:
        plan: the process to become.
        line: to the parent.
        given: inherited descriptors.
        target: the container's first process (a pidfd) and the CLONE_NEW* it has of its own.
        ignored: signals to give their default action.

    """
    try:
        isolate([line.fileno(), target[0], *given.descriptors()])
        settle.reset_signals(ignored)
        if given.birth is not None:
            given.birth.keep_from_children()
        label_fd = _enter(plan, line, given, target)
        _execute(plan, line, given, label_fd)
    except BaseException as error:  # noqa: BLE001 - must not return into the parent's frames
        report(line, error)
    os._exit(1)


def _enter(plan: ProcessPlan, line: Channel, given: Inheritance, target: tuple[int, int]) -> int:
    if plan.tuning is not None:
        plan.tuning.use_initial_cpus()
    cgroups.join(given.cgroup_fds)
    if plan.tuning is not None:
        plan.tuning.use_final_cpus()
    warning = settle.adjust_oom_score(plan.oom_score_adj)
    if warning:
        line.send({"warning": warning})
    label_fd = settle.open_exec_label(plan)
    if given.has_own_keyring:
        namespaces.join_session_keyring()
    init_pidfd, flags = target
    namespaces.join(init_pidfd, flags)
    os.close(init_pidfd)
    if flags & namespaces.CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    return label_fd


def _execute(plan: ProcessPlan, line: Channel, given: Inheritance, label_fd: int) -> None:
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if plan.terminal:
        _take_terminal(plan, root_fd, line)
    elif given.stdio is not None:
        settle.take_streams(given.stdio, root_fd)
    identity = settle.resolve_identity(plan, root_fd)
    settle.own_streams(identity.uid)
    is_at_home = settle.enter_directory(plan, root_fd)
    for text in settle.apply_limits(plan, born_inside=True):
        line.send({"warning": text})
    kept = settle.keep_capabilities(plan, line)
    late = [label_fd] if label_fd >= 0 else []
    process.close_all_but([0, 1, 2, line.fileno(), *given.preserved, *late])
    settle.write_exec_label(plan, label_fd)
    settle.become_user(plan, identity, kept)
    path, program = settle.find_program(plan, given.own_program, is_at_home=is_at_home)
    settle.drop_privileges(plan, kept, line)
    continue_inside(plan, line, given)
    line.say_ready()
    settle.execute(path, program, -1)


def _take_terminal(plan: ProcessPlan, root_fd: int, line: Channel) -> None:
    try:
        pts_fd = paths.open_in_root(root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
        terminal.check_devpts(pts_fd)
        master_fd, slave_fd = terminal.open_pair(pts_fd)
    except OSError as error:
        raise LaunchError(
            f"cannot open a terminal in the container: {sentence(error)}",
            errno=error.errno or 0,
            step="open terminal",
        ) from None
    line.send({"terminal": True}, master_fd)
    for fd in (master_fd, pts_fd):
        os.close(fd)
    settle.take_terminal(slave_fd, plan.size, controlling=False)
