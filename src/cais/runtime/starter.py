"""Start a container: open what it inherits, clone its first process, stay out of its way."""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError
from cais.linux import cgroups, namespaces, process
from cais.runtime import (
    cgroup_mounts,
    channel,
    child,
    groups,
    isolation,
    last_hooks,
    openings,
    pipes,
    plan,
    settle,
    spares,
    standing,
)
from cais.runtime.child import Inheritance
from cais.runtime.launch import Launch, LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.linux.siblings import Birth
    from cais.runtime.channel import Channel
    from cais.runtime.errands import Errands
    from cais.runtime.forerunner import Forerunner
    from cais.runtime.habits import Habits
    from cais.runtime.launch import Stdio
    from cais.runtime.plan import ContainerPlan


def begin(
    container_id: str,
    bundle: str,
    *,
    stdio: Stdio | None,
    size: tuple[int, int] | None = None,
    hold_fd: int = -1,
    verdict_fd: int = -1,
    habits: Habits | None = None,
) -> Launch:
    """Start the container of ``bundle`` (``config.json`` and, if there, ``cais.json``).

    Args:
        container_id: names the cgroup when the document does not.
        bundle: absolute path; docs/architecture.md 3.2.
        stdio: None with a terminal (``process.terminal``).
        size: (height, width) of the terminal; otherwise ``process.consoleSize``.
        hold_fd: when given, the read end of a FIFO: the child stops before execve until a byte
            arrives there (the ``created`` state). Borrowed.
        verdict_fd: when given, where the child then writes why the container cannot be started;
            at its end by execve. Borrowed.
        habits: what a command line asked for besides.

    Raises:
        CaisError: the documents are wrong; nothing was started.
        LaunchError: the kernel refused the child; nothing is left.

    """
    container = plan.load_container(container_id, bundle)
    container.process.size = size or container.process.size
    if not stdio and not container.process.terminal:
        raise InvalidArgumentError("a process without a terminal needs stdio")
    hierarchy = cgroups.detect()
    by_systemd = habits is not None and habits.by_systemd
    group = groups.make_group(container_id, container.config, by_systemd=by_systemd)
    private = bool(container.new & namespaces.CLONE_NEWCGROUP)
    cgroup_mounts.describe(container.root, hierarchy, group.path, private=private)
    pipes.give(stdio, container.process.streams_owner)
    given = Inheritance(stdio, groups.own_program())
    given.hold_fd, given.verdict_fd = hold_fd, verdict_fd
    if habits is not None:
        habits.settle(container.process, given)
        container.root.pivots = habits.pivots
    try:
        launch = _launch(container, group, given)
    except BaseException as error:
        groups.give_up(group)
        if isinstance(error, OSError):
            text = child.describe(error)
            raise LaunchError(text, errno=error.errno or 0, step="clone") from error
        raise
    launch.entered = group.entered
    launch.oom_kills = group.oom_kills
    groups.remember(container_id, group)
    last_hooks.remember(container_id, container.hooks)
    return launch


def _launch(container: ContainerPlan, group: Cgroup, given: Inheritance) -> Launch:
    # The child must never be dumpable, not even at its first step; unless this is an ordinary
    # user, who could not write the maps of its user namespace then.
    given.maps_by_user = container.has_user_namespace and standing.is_ordinary_user()
    process.set_dumpable(dumpable=standing.is_ordinary_user())
    _make_root_place(container)
    owned: list[int] = []
    try:
        cgroup_fd = groups.open_entry(group, given, owned)
        visited = openings.open_inheritance(container, given, owned)
        launch = _use_spare(container, group, given, cgroup_fd)
        return launch or _clone(container, group, given, cgroup_fd, visited)
    finally:  # what the child inherits is open only meanwhile
        for fd in owned:
            os.close(fd)


def _use_spare(
    container: ContainerPlan, group: Cgroup, given: Inheritance, cgroup_fd: int
) -> Launch | None:
    """Have a process that knows no other container become this one's; None: clone.

    In a pid namespace that is joined, the process born inside is a copy of it, which a container
    with CAP_SYS_PTRACE can read.
    """
    if not _is_usual(container, given):
        return None
    if "pid" in container.join:
        spare = spares.make(isolation.flags_at_birth(container), cgroup_fd)
    else:
        spare = spares.take() or spares.make()
    if spare is None:
        return None
    try:
        if "pid" in container.join:
            return spare.forerun(container, given, lambda: groups.give_up(group))
        return spare.start(container, given, cgroup_fd, lambda: groups.give_up(group))
    except (OSError, ValueError):  # it ended just now; or what the document asks is not carried
        return None


def _is_usual(container: ContainerPlan, given: Inheritance) -> bool:
    """Say whether the parent has nothing to do for the container's process but to clone it."""
    is_special = (
        container.in_user_namespace
        or container.new & namespaces.CLONE_NEWTIME  # refused to who shares memory
    )
    # The process of one that joins a pid namespace is told to its agent once it is born.
    agent = container.agent if given.pid_namespace_fd < 0 else None
    asked = (container.hooks, agent, container.net_devices)
    return not (is_special or any(asked))


def _clone(
    container: ContainerPlan,
    group: Cgroup,
    given: Inheritance,
    cgroup_fd: int,
    visited: list[tuple[int, int, str]],
) -> Launch:
    ours, theirs = channel.open_channel()
    try:
        errands = _errands(container, ours)
        if container.user_path or "pid" in container.join:
            given.birth = _birth()
        ignored = process.ignored_signals()
        with openings.Visit(visited):
            new = isolation.flags_at_birth(container)
            made = process.clone(new, cgroup_fd=cgroup_fd)
            if made[0] == 0:
                child.run(container, theirs, given, ignored)
        forerunner = _forerunner(container, given, made, ours)
    except BaseException:
        ours.close()
        if given.birth is not None:
            given.birth.close()
        raise
    finally:
        theirs.close()
    launch = Launch(
        ours,
        made if forerunner is None else None,
        forerunner,
        warnings=container.process.warnings,
        held=given.hold_fd >= 0,
        errands=errands,
        clean_up=lambda: groups.give_up(group),
    )
    if container.has_user_namespace:
        _admit(container, launch, ours)
    return launch


def _forerunner(
    container: ContainerPlan, given: Inheritance, made: tuple[int, int], line: Channel
) -> Forerunner | None:
    """Return the process that was made if it is not the container's own."""
    if given.birth is None:
        return None
    # Only here: most containers join neither namespace.
    from cais.runtime.forerunner import Forerunner

    born_twice = isolation.is_born_twice(container)
    if born_twice or given.pid_namespace_fd >= 0:
        return Forerunner(made, given.birth, line, prepares=not born_twice)
    given.birth.close()
    return None


def _birth() -> Birth:
    # Only here: as above.
    from cais.linux.siblings import Birth

    return Birth()


def _make_root_place(container: ContainerPlan) -> None:
    """Make the directory that hooks will see the root at: of cais.json it is not there."""
    if container.hooks is not None and container.hooks.are_for_creation:
        os.makedirs(container.root.path, 0o700, exist_ok=True)


def _errands(container: ContainerPlan, line: Channel) -> Errands | None:
    """Return what is to be done for the child on its way; None in nearly every case."""
    is_joined = "pid" in container.join and container.process.tuning is not None
    asked = (container.hooks, container.agent, container.net_devices)
    if not any(asked) and not is_joined:
        return None
    # Only here: few documents ask for any of it.
    from cais.runtime.errands import Errands

    hooks, agent, devices = asked
    return Errands(line, hooks, agent, container.process.tuning, devices)


def _admit(container: ContainerPlan, launch: Launch, line: Channel) -> None:
    """Give a child in a new user namespace its identity maps, and let it go on."""
    # Only here: most containers have the host's.
    from cais.linux import user_namespaces

    assert launch.pid is not None
    try:
        user_namespaces.write_identity_maps(launch.pid, container.uid_map, container.gid_map)
        warning = settle.adjust_oom_score(container.process.oom_score_adj, str(launch.pid))
        if warning:
            launch.warn(warning)
        line.send({"go": True})
    except BaseException:
        launch.abort()
        raise
