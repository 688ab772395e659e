"""What the parent opens for a container's first process before there is one.

By host path, and with the parent's rights: namespaces that exist, the init, and in a user namespace
all that its root could not reach.
"""

from __future__ import annotations

import os

from cais.linux import namespaces
from cais.runtime import devices, root_layers, rootfs, standing
from cais.runtime.launch import LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.child import Inheritance
    from cais.runtime.plan import ContainerPlan


def open_inheritance(
    container: ContainerPlan, given: Inheritance, owned: list[int]
) -> list[tuple[int, int, str]]:
    """Open what the child cannot; return the namespaces it must be born in (for ``Visit``).

    What was opened is added to ``owned``, for the caller to close when the child has it.
    """
    visited = _open_namespaces(container, given, owned)
    if container.process.init:
        # Only here: its code is not small.
        from cais.runtime import reaper

        given.init_fd = reaper.program_fd()
        owned.append(given.init_fd)
    owned += _open_identity_maps(container)
    container.root.binds_devices = container.in_user_namespace or standing.is_nested()
    _prepare_host_trees(container, given, owned)
    given.trees = [*given.trees, *container.root.idmap_fds()]
    return visited


def _open_identity_maps(container: ContainerPlan) -> list[int]:
    if not any(entry.idmap for entry in (*container.root.layers, *container.root.mounts)):
        return []
    # Only here: few documents ask for any.
    from cais.runtime import id_mapped_mounts

    return id_mapped_mounts.open_namespaces(container)


def _prepare_host_trees(container: ContainerPlan, given: Inheritance, owned: list[int]) -> None:
    """Open by host path what the container's process cannot; adds it to ``owned``.

    That is everything in a user namespace; otherwise what a process of the host has to serve.
    """
    try:
        if container.in_user_namespace and not standing.is_ordinary_user():
            rootfs.open_host_trees(container.root)
            devices.open_host_nodes(container.root.devices)
        else:
            root_layers.open_served_layers(container.root)
    finally:
        mounts = [*container.root.layers, *container.root.mounts]
        trees = [*(m.tree_fd for m in mounts), *(d.tree_fd for d in container.root.devices)]
        given.trees = [fd for fd in trees if fd >= 0]
        owned += given.trees


def _open_namespaces(
    container: ContainerPlan, given: Inheritance, owned: list[int]
) -> list[tuple[int, int, str]]:
    """Open the namespaces to join; return those the parent must be in at the clone.

    A pid namespace is entered only by being born in it. That is the child's last step, and the
    processes inside see nothing before it; not with hooks or a listener needed early, whose peers
    must be told of the process before. One that belongs to the host cannot be joined any more from
    inside a new user namespace.
    """
    agent = container.agent
    is_awaited = container.hooks is not None or (agent is not None and agent.is_needed_early)
    visited = []
    if container.user_path:
        given.user_fd = _open_namespace("user", container.user_path)
        owned.append(given.user_fd)
    for kind, (flag, name) in namespaces.KINDS.items():
        if kind not in container.join:
            continue
        fd = _open_namespace(kind, container.join[kind])
        owned.append(fd)
        if container.has_user_namespace or (kind == "pid" and is_awaited):
            visited.append((fd, flag, name))
            continue
        given.namespace_fds.append((fd, flag))
        if kind == "pid":
            given.pid_namespace_fd = fd
    return visited


def _open_namespace(kind: str, path: str) -> int:
    """Open the namespace that the document says is at ``path``, whatever is there now."""
    # Not blocking: it may be a FIFO.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = os.open(path, flags)
    except OSError as error:
        text = f"{kind} namespace {path}: {sentence(error)}"
        raise LaunchError(text, errno=error.errno or 0, step="open") from error
    if namespaces.kind_of(fd) != namespaces.KINDS[kind][0]:
        os.close(fd)
        raise LaunchError(f"{kind} namespace {path}: not a {kind} namespace", step="open")
    return fd


class Visit:
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
            namespaces.return_home(fd, flag)
            os.close(fd)
        self._home.clear()
