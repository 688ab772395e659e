"""Start another process in a running container."""

from __future__ import annotations

import os

from cais.errors import ConflictError, InvalidArgumentError
from cais.linux import namespaces, process
from cais.linux.siblings import Birth
from cais.linux.signals import pidfd_send_signal
from cais.runtime import channel, child, groups, joiner, pipes, process_plan, spares
from cais.runtime.forerunner import Forerunner
from cais.runtime.launch import Launch, LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.runtime.channel import Channel
    from cais.runtime.child import Inheritance
    from cais.runtime.errands import Errands
    from cais.runtime.habits import Habits
    from cais.runtime.launch import Stdio
    from cais.runtime.process_plan import ProcessPlan
    from cais.runtime.seccomp_agent import Agent
    from cais.spec.runtime import Config


def begin_exec(
    container_id: str,
    bundle: str,
    document: str,
    init_pidfd: int,
    *,
    stdio: Stdio | None,
    size: tuple[int, int] | None = None,
    habits: Habits | None = None,
    bundle_path: str = "",
) -> Launch:
    """Start a process in the container whose first process is ``init_pidfd``.

    Args:
        container_id: as given to ``begin``.
        bundle: as given to ``begin``.
        document: path of the process document (docs/architecture.md 3.2).
        init_pidfd: borrowed.
        stdio: None with a terminal.
        size: (height, width) of the terminal; otherwise ``process.consoleSize``.
        habits: what a command line asked for besides.
        bundle_path: where the bundle is, when ``bundle`` has only its documents.

    Raises:
        ConflictError: the container is not running.
        CaisError: the document is wrong; nothing was started.
        LaunchError: the kernel refused the child; nothing is left.

    """
    wanted, config = process_plan.load_exec(document, bundle)
    wanted.size = size or wanted.size
    if not stdio and not wanted.terminal:
        raise InvalidArgumentError("a process without a terminal needs stdio")
    _check_running(container_id, init_pidfd)
    pipes.give(stdio, wanted.streams_owner)
    given = child.Inheritance(stdio, groups.own_program())
    try:
        group = groups.group_of(container_id, bundle)
        if habits is not None:
            habits.settle(wanted, given)
            given.subgroups = habits.subgroups
        place = bundle_path or bundle
        agent = process_plan.load_agent(wanted, container_id, place, config, init_pidfd=init_pidfd)
        return _launch(wanted, group, given, (init_pidfd, _flags(config)), agent)
    except OSError as error:
        raise LaunchError(sentence(error), errno=error.errno or 0, step="clone") from error


def _launch(
    wanted: ProcessPlan,
    group: Cgroup,
    given: Inheritance,
    target: tuple[int, int],
    agent: Agent | None,
) -> Launch:
    process.set_dumpable(dumpable=False)
    owned: list[int] = []
    try:
        runs_before = wanted.tuning is not None and wanted.tuning.has_initial_cpus
        cgroup_fd = groups.open_entry(group, given, owned, by_clone=not runs_before)
        launch = _use_spare(wanted, given, target, cgroup_fd, agent)
        return launch or _clone(wanted, given, target, cgroup_fd, agent)
    finally:  # what the child inherits is open only meanwhile
        for fd in owned:
            os.close(fd)


def _use_spare(
    wanted: ProcessPlan,
    given: Inheritance,
    target: tuple[int, int],
    cgroup_fd: int,
    agent: Agent | None,
) -> Launch | None:
    """Have a process that knows no other container be stage one; None: the caller shall clone.

    Stage two is a copy of it, which a container with CAP_SYS_PTRACE can read.
    """
    waiting = spares.take() if cgroup_fd < 0 else None
    spare = waiting or spares.make(cgroup_fd=cgroup_fd)
    if spare is None:
        return None
    try:
        return spare.execute(wanted, given, target, agent)
    except (OSError, ValueError):  # it ended just now; or what the document asks is not carried
        return None


def _clone(
    wanted: ProcessPlan,
    given: Inheritance,
    target: tuple[int, int],
    cgroup_fd: int,
    agent: Agent | None,
) -> Launch:
    ours, theirs = channel.open_channel()
    given.birth = Birth()
    try:
        errands = _errands(wanted, ours, agent)
        ignored = process.ignored_signals()
        pid, pidfd = process.clone(0, cgroup_fd=cgroup_fd)
        if pid == 0:
            joiner.run(wanted, theirs, given, target, ignored)
        forerunner = Forerunner((pid, pidfd), given.birth, ours)
    except BaseException:
        ours.close()
        given.birth.close()
        raise
    finally:
        theirs.close()
    return Launch(ours, None, forerunner, warnings=wanted.warnings, errands=errands)


def _errands(wanted: ProcessPlan, line: Channel, agent: Agent | None) -> Errands | None:
    if agent is None and wanted.tuning is None:
        return None
    # Only here: few documents ask for any of it.
    from cais.runtime.errands import Errands

    return Errands(line, None, agent, wanted.tuning)


def _check_running(container_id: str, init_pidfd: int) -> None:
    try:
        pidfd_send_signal(init_pidfd, 0)
    except ProcessLookupError:
        raise ConflictError(f"container {container_id} is not running") from None


def _flags(config: Config) -> int:
    """Return the namespaces of the container that are not the host's, made or joined."""
    flags = 0
    for entry in config.get("linux", {}).get("namespaces", ()):
        flags |= namespaces.KINDS[entry["type"]][0]
    return flags
