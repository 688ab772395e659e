"""A container's first process, from clone3 to execve.

Runs in a copy of the warm parent. Nothing is imported here and nothing is looked up by name in
files of the host once the root is entered: the interpreter's search paths are emptied first, so
a forgotten import fails instead of finding the image's files (CVE-2019-14271).

``run`` never returns and never raises: it ends in execve, or reports through the channel and
exits. The process is not dumpable until execve. Where the pid namespace is another container's,
whose processes may have CAP_SYS_PTRACE, it prepares everything outside, and what is born inside
for the last step has nothing of the host left (as an exec does: ``joiner``).
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys

from cais.errors import CaisError
from cais.linux import namespaces, process, terminal
from cais.runtime import channel as channels
from cais.runtime import isolation, pivot, restrictions, rootfs, settle
from cais.runtime.launch import LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from cais.linux.siblings import Birth
    from cais.runtime.channel import Channel
    from cais.runtime.hooks import Hooks
    from cais.runtime.launch import Stdio
    from cais.runtime.plan import ContainerPlan
    from cais.runtime.process_plan import ProcessPlan


# The import system of the child. The parent's lists stay referenced, because taking a Python
# object apart here would copy every page it lies on: half a millisecond.
_NOWHERE: tuple[list[str], list[Any], list[Any]] = ([], [], [])
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT = (sys.path, sys.meta_path, sys.path_hooks)


class Inheritance:
    """Descriptors the child gets by the clone, besides the channel."""

    __slots__ = (
        "birth",
        "cgroup_fds",
        "has_own_keyring",
        "hold_fd",
        "init_fd",
        "is_studied",
        "maps_by_user",
        "namespace_fds",
        "own_program",
        "pid_namespace_fd",
        "preserved",
        "root_place_fd",
        "stdio",
        "subgroups",
        "trees",
        "user_fd",
        "verdict_fd",
    )

    def __init__(self, stdio: Stdio | None, own_program: tuple[int, int]) -> None:
        self.stdio = stdio
        self.own_program = own_program
        self.birth: Birth | None = None  # of the container's process, where another makes it
        self.cgroup_fds: Sequence[int] = ()
        self.namespace_fds: list[tuple[int, int]] = []  # (descriptor, CLONE_NEW*)
        self.preserved: Sequence[int] = ()  # for the program, by number
        self.has_own_keyring = True
        self.subgroups: Mapping[str, str] = {}  # below the container's group, by controller
        self.user_fd = -1  # of the user namespace, when it is another's
        self.pid_namespace_fd = -1  # one of them, which only a new process enters
        self.trees: Sequence[int] = ()
        self.maps_by_user = False  # an ordinary user, who cannot write those of the undumpable
        self.hold_fd = -1
        self.verdict_fd = -1
        self.init_fd = -1
        self.is_studied = False  # the parent wants to see which pages it has, see ``nursery``
        self.root_place_fd = -1  # opened by the child, see ``_open_root_place``

    def descriptors(self) -> list[int]:
        """Return all that must stay open at first."""
        streams = [self.stdio.stdin, self.stdio.stdout, self.stdio.stderr] if self.stdio else []
        joined = [fd for fd, _ in self.namespace_fds]
        single = (self.hold_fd, self.verdict_fd, self.init_fd, self.user_fd)
        fds = [*streams, *joined, *self.cgroup_fds, *self.trees, *self.preserved, *single]
        return [fd for fd in fds if fd >= 0]


def run(plan: ContainerPlan, line: Channel, given: Inheritance, ignored: Sequence[int]) -> NoReturn:
    """Become the container's first process; see the module."""
    try:
        isolate([line.fileno(), *given.descriptors()], dumpable=given.maps_by_user)
        settle.reset_signals(ignored)
        if given.birth is not None:
            given.birth.keep_from_children()
        shows_root = plan.hooks is not None and plan.hooks.are_for_creation
        if shows_root and plan.has_user_namespace:  # now, while we may walk there
            given.root_place_fd = os.open(plan.root.path, _PLACE)
        isolation.enter(plan, line, given)
        if shows_root and not plan.has_user_namespace:  # now that the mount namespace is ours
            given.root_place_fd = os.open(plan.root.path, _PLACE)
        _execute(plan, line, given)
    except BaseException as error:  # noqa: BLE001 - must not return into the parent's frames
        report(line, error)
    os._exit(1)


def isolate(keep: Sequence[int], *, dumpable: bool = False) -> None:
    """Cut this copy off: no imports, no collector, no descriptors but ``keep`` and 0, 1, 2."""
    process.set_dumpable(dumpable=dumpable)
    gc.disable()
    sys.path, sys.meta_path, sys.path_hooks = _NOWHERE
    process.close_all_but([0, 1, 2, *keep])


def report(line: Channel, error: BaseException) -> None:
    """Send why it failed; a channel that is gone has nobody waiting."""
    if isinstance(error, LaunchError):
        facts = {"message": error.message, "kind": error.kind, "step": error.step}
        code = error.errno
    else:
        step = getattr(error, "step", "") or type(error).__name__
        facts = {"message": describe(error), "kind": "setup", "step": step}
        code = getattr(error, "errno", None) or 0
    limited = {name: value[: channels.TEXT_LIMIT] for name, value in facts.items()}
    try:
        line.say({"error": {"errno": code, **limited}})
    except OSError:
        return


def _execute(plan: ContainerPlan, line: Channel, given: Inheritance) -> None:
    user_program = plan.process
    os.umask(0)
    label = settle.open_exec_label(user_program)
    rootfs.open_sources(plan.root, given.pid_namespace_fd)
    if given.pid_namespace_fd >= 0:
        namespaces.join(given.pid_namespace_fd, namespaces.CLONE_NEWPID)
    if given.root_place_fd >= 0:
        root_fd = _enter_after_hooks(plan, line, given.root_place_fd)
    else:
        root_fd = rootfs.enter(plan.root)
        rootfs.assemble(plan.root, root_fd)
    if user_program.terminal:
        _take_terminal(plan, root_fd, line, controlling=given.pid_namespace_fd < 0)
    elif given.stdio is not None:
        settle.take_streams(given.stdio, root_fd)
    rootfs.make_working_directory(root_fd, user_program.cwd)
    restrictions.restrict(plan.root, root_fd)
    identity = settle.resolve_identity(user_program, root_fd)
    settle.own_streams(identity.uid)
    is_at_home = settle.enter_directory(user_program, root_fd)
    for text in settle.apply_limits(user_program, born_inside=given.pid_namespace_fd >= 0):
        _warn(line, text)
    kept = settle.keep_capabilities(user_program, line)
    state_fd = plan.hooks.open_state("startContainer", os.getpid()) if plan.hooks else -1
    single = (label, given.hold_fd, given.verdict_fd, given.init_fd, state_fd)
    late = [fd for fd in single if fd >= 0]
    process.close_all_but([0, 1, 2, line.fileno(), *given.preserved, *late])
    settle.write_exec_label(user_program, label)
    settle.become_user(user_program, identity, kept)
    path, program = settle.find_program(user_program, given.own_program, is_at_home=is_at_home)
    settle.drop_privileges(user_program, kept, line)
    if given.pid_namespace_fd >= 0:
        continue_inside(user_program, line, given)
    if given.is_studied:
        line.say({"pages": True})
        line.wait_for_word()
    line.say_ready()
    if given.hold_fd >= 0:
        _wait_for_start(given.hold_fd)
    if plan.hooks is not None:
        _run_last_hooks(plan.hooks, state_fd, given.verdict_fd)
    settle.execute(path, program, given.init_fd)


def _enter_after_hooks(plan: ContainerPlan, line: Channel, place_fd: int) -> int:
    """Assemble the root where the host's tree has its place, run hooks, then make it "/".

    Hooks want to see and change the finished root by its path in the bundle, before the pivot.
    """
    assert plan.hooks is not None
    root_fd = rootfs.show(plan.root, place_fd)
    rootfs.assemble(plan.root, root_fd)
    if plan.hooks.has("prestart", "createRuntime"):
        line.send({"hooks": True})
        line.wait_for_word()
    os.fchdir(root_fd)
    plan.hooks.run("createContainer", plan.hooks.open_state("createContainer", os.getpid()))
    pivot.enter(root_fd, pivots=plan.root.pivots)
    os.close(place_fd)
    return root_fd


def _run_last_hooks(hooks: Hooks, state_fd: int, verdict_fd: int) -> None:
    """Run the startContainer hooks; a failure goes to who started the container, if it was held."""
    try:
        hooks.run("startContainer", state_fd)
    except LaunchError as error:
        if verdict_fd < 0:
            raise
        os.write(verdict_fd, os.fsencode(error.message))
        os._exit(1)


def continue_inside(plan: ProcessPlan, line: Channel, given: Inheritance) -> None:
    """Go on as a new process, born in the pid namespace that was joined; this one ends here.

    The new one waits for the parent's word: if this one is killed before it could say who that
    is, nothing unknown keeps running.

    Raises:
        LaunchError: the process's filter forbids clone.

    """
    assert given.birth is not None
    try:
        pid = given.birth.clone_sibling()
    except OSError as error:
        reason = f"clone: {os.strerror(error.errno or 0).lower()}"
        if plan.filter is not None and error.errno in (errno.EPERM, errno.ENOSYS):
            reason += " (it needs a seccomp profile that allows clone)"
        raise LaunchError(reason, errno=error.errno or 0, step="clone") from None
    if pid:
        line.say({"process": pid})
        os._exit(0)
    line.wait_for_word()
    os.setsid()
    if plan.terminal:
        terminal.make_controlling(0)


def _take_terminal(plan: ContainerPlan, root_fd: int, line: Channel, *, controlling: bool) -> None:
    entry = plan.root.find_mount("/dev/pts")
    if entry is None or entry.kind != "devpts":
        raise LaunchError("a terminal needs a devpts file system at /dev/pts", step="open terminal")
    master_fd, slave_fd = terminal.open_pair(entry.tree_fd)
    line.send({"terminal": True}, master_fd)
    os.close(master_fd)
    rootfs.place_console(root_fd, slave_fd)
    settle.take_terminal(slave_fd, plan.process.size, controlling=controlling)


def _wait_for_start(fifo_fd: int) -> None:
    """Wait for the byte ``start`` writes; a FIFO nobody has opened for writing yet is silent."""
    select.select([fifo_fd], [], [])  # poll(2) takes no more than RLIMIT_NOFILE, which may be 0
    if not os.read(fifo_fd, 1):
        os._exit(1)  # opened and closed without a word: the container was given up


def _warn(line: Channel, text: str | None) -> None:
    if text:
        line.send({"warning": text})


def describe(error: BaseException) -> str:
    """Return what an error says: its own words when it was raised on purpose."""
    if isinstance(error, CaisError):
        return str(error)
    if isinstance(error, OSError):
        what = f" {error.filename!r}" if error.filename else ""
        return f"{sentence(error)}{what}"
    return f"{type(error).__name__}: {error}"
