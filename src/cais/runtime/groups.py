"""The control groups of containers, and how a new process gets into one."""

from __future__ import annotations

import os

from cais.errors import CaisError, ConflictError, InvalidArgumentError, UnsupportedError
from cais.linux import cgroups
from cais.runtime import bundles, plan, standing
from cais.runtime.launch import LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.runtime.child import Inheritance
    from cais.spec.runtime import Config

_own_program: list[tuple[int, int]] = []
_groups: dict[str, Cgroup] = {}  # of the containers begun here; others are read from their bundle


def group_of(container_id: str, bundle: str) -> Cgroup:
    """Return the control group of a container; read from its bundle if it was begun elsewhere."""
    if container_id not in _groups:
        config = bundles.load_config(bundle)
        group = _with_class(container_id, config, _find(container_id, config))
        if standing.is_rootless() and not group.exists():
            # Only here: root's containers have a group.
            from cais.runtime.no_group import NoGroup

            group = NoGroup()
        _groups[container_id] = group
    return _groups[container_id]


def name_group(container_id: str, config: Config, *, by_systemd: bool = False) -> Cgroup:
    """Return the group a new container shall have.

    Args:
        container_id: names it when the document does not.
        config: the document; ``slice:prefix:name`` is a unit of systemd in any case.
        by_systemd: the group must be one (``--systemd-cgroup``).

    Raises:
        InvalidArgumentError: it must be systemd's, and the document names a directory.
        UnsupportedError: it must be systemd's, which is not running here; or the document has
            ``intelRdt``, which this host does not.

    """
    path = config.get("linux", {}).get("cgroupsPath") or ""
    if by_systemd and path and not cgroups.is_systemd_path(path):
        raise InvalidArgumentError(
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f"got {path[:128]!r} instead"
        )
    default = _systemd_default if by_systemd else plan.default_cgroup
    path = path or default(container_id)
    if cgroups.is_systemd_path(path) and not os.path.isdir("/run/systemd/system"):
        raise UnsupportedError("systemd cgroup flag passed, but systemd is not running here")
    return _with_class(container_id, config, cgroups.open_cgroup(cgroups.detect(), path))


def _with_class(container_id: str, config: Config, group: Cgroup) -> Cgroup:
    document = config.get("linux", {}).get("intelRdt")
    if document is None:
        return group
    # Only here: few documents ask for it.
    from cais.runtime import resctrl

    return resctrl.with_class(container_id, document, group)


def make_group(container_id: str, config: Config, *, by_systemd: bool = False) -> Cgroup:
    """Make a new container's group with its limits; a rootless one may have to go without.

    Raises:
        CaisError: as ``name_group`` and ``Cgroup.create``.
        LaunchError: the kernel refuses a value, or a group with limits to a rootless container.

    """
    group = name_group(container_id, config, by_systemd=by_systemd)
    resources = config.get("linux", {}).get("resources", {})
    try:
        group.create(resources)
    except OSError as error:
        if standing.is_rootless():
            from cais.runtime import no_group

            if no_group.is_denied(error):
                return no_group.instead(resources, error)
        raise LaunchError(sentence(error), errno=error.errno or 0, step="cgroup") from error
    return group


def _find(container_id: str, config: Config) -> Cgroup:
    """Return the group of a container begun elsewhere, by whichever driver."""
    hierarchy = cgroups.detect()
    path = config.get("linux", {}).get("cgroupsPath")
    group = cgroups.open_cgroup(hierarchy, path or plan.default_cgroup(container_id))
    if not path and hierarchy.version == 2 and not group.exists():
        by_systemd = cgroups.open_cgroup(hierarchy, _systemd_default(container_id))
        return by_systemd if by_systemd.exists() else group
    return group


def _systemd_default(container_id: str) -> str:
    return f":cais:{container_id}"


def existing_group(container_id: str, bundle: str) -> Cgroup:
    """Return the group of a container that runs.

    Raises:
        ConflictError: it does not.
        UnsupportedError: it has none.

    """
    group = group_of(container_id, bundle)
    if not group.path:
        raise UnsupportedError(f"rootless container {container_id} has no control group")
    if not group.exists():
        raise ConflictError(f"container {container_id} is not running")
    return group


def remember(container_id: str, group: Cgroup) -> None:
    """Note the group of a container that was begun here."""
    _groups[container_id] = group


def forget(container_id: str) -> None:
    """Drop what was noted; idempotent."""
    _groups.pop(container_id, None)


def end(group: Cgroup) -> None:
    """Remove a group, and end whoever is left in it; idempotent.

    Raises:
        CgroupError: the kernel refuses it.
        DeadlineError: a process survived.

    Blocks: up to 10 s for a process stuck in the kernel.

    """
    if not group.remove_if_empty():  # nearly always: the first process took the others along
        group.kill_all()
        group.remove()


def give_up(group: Cgroup) -> None:
    """End the group of a start that failed; silent, for what is told is why the start failed."""
    try:
        end(group)
    except (CaisError, OSError):
        return


def own_program() -> tuple[int, int]:
    """Return (device, inode) of the program this process runs."""
    if not _own_program:
        status = os.stat("/proc/self/exe")
        _own_program.append((status.st_dev, status.st_ino))
    return _own_program[0]


def open_entry(
    group: Cgroup, given: Inheritance, owned: list[int], *, by_clone: bool = True
) -> int:
    """Return the directory for CLONE_INTO_CGROUP, or -1 and the files the child writes to.

    What was opened is added to ``owned``, for the caller to close after the clone.

    Args:
        group: to enter.
        given: gets the files.
        owned: see above.
        by_clone: false for a child that has something to do before it enters.

    """
    if given.subgroups:
        given.cgroup_fds = group.join_fds_below(given.subgroups)
        owned += given.cgroup_fds
        return -1
    directory_fd = group.clone_fd() if by_clone else None
    if directory_fd is not None:
        owned.append(directory_fd)
        return directory_fd
    given.cgroup_fds = group.join_fds()
    owned += given.cgroup_fds
    return -1
