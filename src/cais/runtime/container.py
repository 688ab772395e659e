"""Create, start, exec, signal and delete containers: the runtime as functions of a bundle.

The caller is single-threaded, warm (everything imported), runs from a sealed copy of the
interpreter, and stays the parent of every process started here. Its Python signal handlers must
do nothing of weight: one that was pending at the clone runs in the child too.
"""

from __future__ import annotations

import os

from cais.errors import ConflictError, InvalidArgumentError
from cais.linux import cgroups, namespaces, process
from cais.runtime import cgroup_mounts, channel, child, devices, plan, reaper, rootfs, settle
from cais.runtime.child import Inheritance
from cais.runtime.launch import Launch, LaunchError, Running, Stdio
from cais.spec.runtime import validate_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.runtime.channel import Channel
    from cais.runtime.plan import ContainerPlan
    from cais.spec.runtime import Resources

__all__ = [
    "Launch",
    "LaunchError",
    "Running",
    "Stdio",
    "begin",
    "destroy",
    "kill_all",
    "pause",
    "resume",
    "update",
]


def begin(
    container_id: str,
    bundle: str,
    *,
    stdio: Stdio | None,
    size: tuple[int, int] | None = None,
    hold_fd: int = -1,
) -> Launch:
    """Start the container of ``bundle`` (``config.json`` and, if there, ``cais.json``).

    Args:
        container_id: names the cgroup when the document does not.
        bundle: absolute path; docs/architecture.md 3.2.
        stdio: None with a terminal (``process.terminal``).
        size: (height, width) of the terminal; otherwise ``process.consoleSize``.
        hold_fd: when given, the read end of a FIFO: the child stops before execve until a byte
            arrives there (the ``created`` state). Borrowed.

    Raises:
        CaisError: the documents are wrong; nothing was started.
        LaunchError: the kernel refused the child; nothing is left.

    """
    container = plan.load_container(container_id, bundle)
    container.process.size = size or container.process.size
    if not stdio and not container.process.terminal:
        raise InvalidArgumentError("a process without a terminal needs stdio")
    hierarchy = cgroups.detect()
    group = cgroups.open_cgroup(hierarchy, container.cgroup)
    private = bool(container.new & namespaces.CLONE_NEWCGROUP)
    cgroup_mounts.describe(container.root, hierarchy, group.path, private=private)
    group.create(container.config.get("linux", {}).get("resources", {}))
    given = Inheritance(stdio, own_program())
    given.hold_fd = hold_fd
    try:
        launch = _launch(container, group, given)
    except BaseException as error:
        group.remove()
        if isinstance(error, OSError):
            raise LaunchError(str(error.strerror), errno=error.errno or 0, step="clone") from error
        raise
    _groups[container_id] = group
    return launch


def kill_all(container_id: str, bundle: str) -> None:
    """Kill every process of the container and wait until it is gone.

    Blocks: up to 10 s for a process stuck in the kernel.
    """
    _group_of(container_id, bundle).kill_all()


def pause(container_id: str, bundle: str) -> None:
    """Freeze every process of the container.

    Raises:
        ConflictError: it is not running.

    """
    _existing_group(container_id, bundle).freeze()


def resume(container_id: str, bundle: str) -> None:
    """Let a frozen container run again."""
    _existing_group(container_id, bundle).thaw()


def update(container_id: str, bundle: str, resources: Resources) -> None:
    """Change the limits ``resources`` names; the others stay."""
    _existing_group(container_id, bundle).apply(validate_resources(resources))


def destroy(container_id: str, bundle: str) -> bool:
    """Kill what is left in the container's cgroup and remove the cgroup; idempotent.

    Call it after the first process has been reaped.

    Returns:
        Whether the kernel's OOM killer ended a process of this container.

    Blocks: up to 10 s for a process stuck in the kernel.

    """
    group = _group_of(container_id, bundle)
    if not group.exists():
        _groups.pop(container_id, None)
        return False
    oom_killed = group.oom_kills() > 0
    group.kill_all()
    group.remove()
    _groups.pop(container_id, None)
    return oom_killed


def cgroup_of(container_id: str, bundle: str) -> Cgroup:
    """Return the container's control group: for its processes, counters and OOM events."""
    return _group_of(container_id, bundle)


def own_program() -> tuple[int, int]:
    """Return (device, inode) of the program this process runs."""
    if not _own_program:
        status = os.stat("/proc/self/exe")
        _own_program.append((status.st_dev, status.st_ino))
    return _own_program[0]


_own_program: list[tuple[int, int]] = []
_groups: dict[str, Cgroup] = {}  # of the containers begun here; others are read from their bundle


def _group_of(container_id: str, bundle: str) -> Cgroup:
    if container_id not in _groups:
        config = plan.load_config(bundle)
        path = config.get("linux", {}).get("cgroupsPath") or plan.default_cgroup(container_id)
        _groups[container_id] = cgroups.open_cgroup(cgroups.detect(), path)
    return _groups[container_id]


def _existing_group(container_id: str, bundle: str) -> Cgroup:
    group = _group_of(container_id, bundle)
    if not group.exists():
        raise ConflictError(f"container {container_id} is not running")
    return group


def _prepare_host_trees(container: ContainerPlan, given: Inheritance) -> None:
    """Open by host path what the root of a user namespace could not."""
    rootfs.open_host_trees(container.root)
    devices.open_host_nodes(container.root.devices)
    mounts = [*container.root.layers, *container.root.mounts]
    trees = [*(m.tree_fd for m in mounts), *(d.tree_fd for d in container.root.devices)]
    given.trees = [fd for fd in trees if fd >= 0]


def _launch(container: ContainerPlan, group: Cgroup, given: Inheritance) -> Launch:
    process.set_dumpable(dumpable=False)  # the child must never be, not even at its first step
    ours, theirs = channel.open_channel()
    owned: list[int] = []
    try:
        cgroup_fd = _open_cgroup_entry(group, given, owned)
        joins = _open_namespaces(container, given, owned)
        if container.process.init:
            given.init_fd = reaper.program_fd()
        if container.has_user_namespace:
            _prepare_host_trees(container, given)
            owned += given.trees
        ignored = process.ignored_signals()
        with _Visit(joins):
            new = container.new & ~namespaces.CLONE_NEWCGROUP
            pid, pidfd = process.clone(new, cgroup_fd=cgroup_fd)
            if pid == 0:
                child.run(container, theirs, given, ignored)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in owned:
            os.close(fd)
    warnings = container.process.warnings
    held = given.hold_fd >= 0
    launch = Launch(ours, (pid, pidfd), warnings=warnings, held=held, clean_up=group.remove)
    if container.has_user_namespace:
        _admit(container, launch, ours)
    return launch


def _admit(container: ContainerPlan, launch: Launch, line: Channel) -> None:
    """Give a child in a new user namespace its identity maps, and let it go on."""
    assert launch.pid is not None
    try:
        namespaces.write_identity_maps(launch.pid, container.uid_map, container.gid_map)
        warning = settle.adjust_oom_score(container.process.oom_score_adj, str(launch.pid))
        if warning:
            launch.warn(warning)
        line.send({"go": True})
    except BaseException:
        launch.abort()
        raise


def _open_cgroup_entry(group: Cgroup, given: Inheritance, owned: list[int]) -> int:
    """Return the directory for CLONE_INTO_CGROUP, or -1 and the files the child writes to."""
    directory_fd = group.clone_fd()
    if directory_fd is not None:
        owned.append(directory_fd)
        return directory_fd
    given.cgroup_fds = group.join_fds()
    owned += given.cgroup_fds
    return -1


def _open_namespaces(
    container: ContainerPlan, given: Inheritance, owned: list[int]
) -> list[tuple[int, int, str]]:
    """Open the namespaces to join; return those the parent must be in at the clone.

    A pid namespace is entered only by being born in it. One that belongs to the host cannot be
    joined any more from inside a new user namespace.
    """
    visited = []
    for kind, (flag, name) in namespaces.KINDS.items():
        if kind not in container.join:
            continue
        path = container.join[kind]
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise LaunchError(f"{kind} namespace {path}: {error.strerror}") from error
        owned.append(fd)
        if kind == "pid" or container.has_user_namespace:
            visited.append((fd, flag, name))
        else:
            given.namespace_fds.append((fd, flag))
    return visited


class _Visit:
    """Be in other namespaces for a moment."""

    __slots__ = ("_home", "_targets")

    def __init__(self, targets: list[tuple[int, int, str]]) -> None:
        self._targets = targets
        self._home: list[tuple[int, int]] = []

    def __enter__(self) -> None:
        for fd, flag, name in self._targets:
            home_fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            self._home.append((home_fd, flag))
            try:
                namespaces.join(fd, flag)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        for fd, flag in reversed(self._home):
            namespaces.join(fd, flag)
            os.close(fd)
        self._home.clear()
