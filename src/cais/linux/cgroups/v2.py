"""A control group on cgroup v2: one directory, controllers handed down from the root.

Spec: kernel Documentation/admin-guide/cgroup-v2.rst.
"""
# ruff: noqa: D102 - the methods are documented on Cgroup

from __future__ import annotations

import errno
import os
import select
import time

from cais.errors import ConflictError, DeadlineError, InvalidArgumentError
from cais.linux.cgroups import device_rules, files, paths, resources_v2
from cais.linux.cgroups.files import CgroupError
from cais.linux.cgroups.group import Cgroup, pids_below, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cais.linux.cgroups.detect import Hierarchy
    from cais.spec.runtime import Resources

# Why a controller is not handed down; the last two in a group that belongs to somebody else, above
# the one that was delegated to an ordinary user.
_LEFT_OUT = (
    *(errno.EBUSY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT),
    *(errno.EACCES, errno.EPERM),
)


class CgroupV2(Cgroup):
    """A group of the unified hierarchy."""

    __slots__ = ("_directory", "_root")

    # A kernfs file is always readable; what changed is said by the priority event.
    oom_poll_mask = select.EPOLLPRI

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        super().__init__(path)
        self._root = str(hierarchy.unified)
        self._directory = self._root + path

    def create(self, resources: Resources) -> None:
        made = self._make()
        try:
            self._set(resources, resources.get("devices", []))
        except BaseException:
            if made:
                os.rmdir(self._directory)
            raise

    def apply(self, resources: Resources) -> None:
        self._set(resources, resources.get("devices"))

    def add(self, pid: int) -> None:
        files.write(f"{self._directory}/cgroup.procs", str(pid))

    def join_fds(self) -> Sequence[int]:
        return _open_procs(self._directory)

    def join_fds_below(self, subgroups: Mapping[str, str]) -> Sequence[int]:
        unknown = [name for name in subgroups if name]
        if unknown:
            raise InvalidArgumentError(
                f"unknown controller {unknown[0]} in SubCgroupPaths: cgroup v2 has one tree"
            )
        return _open_procs(self._directory + paths.below(subgroups[""]))

    def clone_fd(self) -> int | None:
        try:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise CgroupError(exc.errno or 0, "open", self._directory) from exc

    def details(self) -> dict[str, Any]:
        # Here: only a person looks at them.
        from cais.linux.cgroups import details_v2

        return details_v2.collect(self._directory)

    def exists(self) -> bool:
        return os.path.isdir(self._directory)

    def freeze(self, timeout_s: float = 10) -> None:
        files.write(f"{self._directory}/cgroup.freeze", "1")
        if not wait_until(self.is_frozen, time.monotonic() + timeout_s):
            self.thaw()
            raise DeadlineError(f"cgroup {self.path}: not frozen within {timeout_s} s")

    def thaw(self) -> None:
        files.write(f"{self._directory}/cgroup.freeze", "0")

    def is_frozen(self) -> bool:
        events = f"{self._directory}/cgroup.events"
        return "frozen 1" in files.read(events).splitlines()

    def pids(self) -> list[int]:
        return pids_below(self._directory)

    def oom_kills(self) -> int:
        return files.find_table(f"{self._directory}/memory.events").get("oom_kill", 0)

    def oom_event_fd(self) -> int | None:
        path = f"{self._directory}/memory.events"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise CgroupError(exc.errno or 0, "open", path) from exc
        self.clear_oom_event(fd)
        return fd

    def clear_oom_event(self, fd: int) -> bool:
        return files.reread_table(fd) is not None

    def stats(self) -> dict[str, Any]:
        # Here: no container needs them to start.
        from cais.linux.cgroups import stats_v2

        return stats_v2.collect(self._directory)

    def _make(self) -> bool:
        """Make the path, handing every controller down; True if the last directory is new."""
        directory = self._root
        made = False
        for part in self.path.split("/")[1:]:
            self._hand_down(directory)
            directory = f"{directory}/{part}"
            made = files.make_directory(directory)
        if not made and pids_below(directory):
            raise ConflictError(f"container's cgroup is not empty: {self.path}")
        return made

    def _hand_down(self, directory: str) -> None:
        """Enable what ``directory`` has for its children; a controller that cannot be is left.

        A limit that needs one left out fails later, by the missing file's name.
        """
        present = (files.find_text(f"{directory}/cgroup.controllers") or "").split()
        enabled = (files.find_text(f"{directory}/cgroup.subtree_control") or "").split()
        missing = [name for name in present if name not in enabled]
        if not missing:
            return
        try:
            self._enable(directory, missing)
        except CgroupError as exc:
            if exc.errno not in _LEFT_OUT:
                raise
            for name in missing:
                self._enable_if_possible(directory, name)

    def _enable(self, directory: str, names: list[str]) -> None:
        line = " ".join(f"+{name}" for name in names)
        files.write(f"{directory}/cgroup.subtree_control", line)

    def _enable_if_possible(self, directory: str, name: str) -> None:
        try:
            self._enable(directory, [name])
        except CgroupError as exc:
            if exc.errno not in _LEFT_OUT:
                raise

    def _set(self, resources: Resources, rules: list[Any] | None) -> None:
        resources_v2.apply(self._directory, resources)
        if rules is not None:
            # Here: only this needs ctypes, and a v1 host never gets here.
            from cais.linux.cgroups import devices_v2

            try:
                devices_v2.apply(self._directory, device_rules.resolve(rules))
            except OSError as exc:
                if exc.errno != errno.EPERM or not _is_rootless():
                    raise  # who is nobody on the host has no device nodes but the host's anyway

    def kill_all(self, timeout_s: float = 10) -> None:
        try:
            files.write(f"{self._directory}/cgroup.kill", "1")
        except CgroupError as exc:
            if exc.errno != errno.ENOENT:
                raise
        # Linux before 5.14 has no cgroup.kill; and the group may take a moment to empty.
        super().kill_all(timeout_s)

    def _directories(self) -> Sequence[str]:
        return [self._directory]


def _is_rootless() -> bool:
    # Here: only a host that refuses gets here.
    from cais.linux import namespaces

    return os.geteuid() != 0 or not namespaces.is_in_initial_user()


def _open_procs(directory: str) -> list[int]:
    path = f"{directory}/cgroup.procs"
    try:
        return [os.open(path, os.O_WRONLY | os.O_CLOEXEC)]
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "open", path) from exc
