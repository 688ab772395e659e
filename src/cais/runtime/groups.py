"""The control groups of containers, and how a new process gets into one."""

from __future__ import annotations

import os

from cais.errors import ConflictError
from cais.linux import cgroups
from cais.runtime import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.runtime.child import Inheritance

_own_program: list[tuple[int, int]] = []
_groups: dict[str, Cgroup] = {}  # of the containers begun here; others are read from their bundle


def group_of(container_id: str, bundle: str) -> Cgroup:
    """Return the control group of a container; read from its bundle if it was begun elsewhere."""
    if container_id not in _groups:
        config = plan.load_config(bundle)
        path = config.get("linux", {}).get("cgroupsPath") or plan.default_cgroup(container_id)
        _groups[container_id] = cgroups.open_cgroup(cgroups.detect(), path)
    return _groups[container_id]


def existing_group(container_id: str, bundle: str) -> Cgroup:
    """Return the group of a container that runs. ConflictError: it does not."""
    group = group_of(container_id, bundle)
    if not group.exists():
        raise ConflictError(f"container {container_id} is not running")
    return group


def remember(container_id: str, group: Cgroup) -> None:
    """Note the group of a container that was begun here."""
    _groups[container_id] = group


def forget(container_id: str) -> None:
    """Drop what was noted; idempotent."""
    _groups.pop(container_id, None)


def own_program() -> tuple[int, int]:
    """Return (device, inode) of the program this process runs."""
    if not _own_program:
        status = os.stat("/proc/self/exe")
        _own_program.append((status.st_dev, status.st_ino))
    return _own_program[0]


def open_entry(group: Cgroup, given: Inheritance, owned: list[int]) -> int:
    """Return the directory for CLONE_INTO_CGROUP, or -1 and the files the child writes to.

    What was opened is added to ``owned``, for the caller to close after the clone.
    """
    directory_fd = group.clone_fd()
    if directory_fd is not None:
        owned.append(directory_fd)
        return directory_fd
    given.cgroup_fds = group.join_fds()
    owned += given.cgroup_fds
    return -1
