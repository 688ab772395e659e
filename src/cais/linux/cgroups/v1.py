"""A control group on cgroup v1: one directory in each mounted hierarchy.

Spec: kernel Documentation/admin-guide/cgroup-v1/cgroups.rst, freezer-subsystem.rst, memory.rst.
"""
# ruff: noqa: D102 - the methods are documented on Cgroup

from __future__ import annotations

import errno
import os
import time

from cais.errors import ConflictError, DeadlineError, InvalidArgumentError
from cais.linux.cgroups import device_rules, devices_v1, files, paths, resources_v1
from cais.linux.cgroups.files import CgroupError, UnsupportedLimitError
from cais.linux.cgroups.group import Cgroup, pids_below, wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from cais.linux.cgroups.detect import Hierarchy
    from cais.spec.runtime import Resources


class CgroupV1(Cgroup):
    """A group of the same path in every v1 hierarchy, those without a controller included."""

    __slots__ = ("_by_controller", "_mounts")

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        super().__init__(path)
        self._by_controller = {name: mount + path for name, mount in hierarchy.mounts.items()}
        self._mounts = sorted(set(hierarchy.mounts.values()))

    def create(self, resources: Resources) -> None:
        made: list[str] = []
        try:
            for mount in self._mounts:
                self._make(mount, made)
            self._set(resources, resources.get("devices", []))
        except BaseException:
            for directory in made:
                os.rmdir(directory)
            raise

    def apply(self, resources: Resources) -> None:
        self._set(resources, resources.get("devices"))

    def add(self, pid: int) -> None:
        for directory in self._directories():
            files.write(f"{directory}/cgroup.procs", str(pid))

    def join_fds(self) -> Sequence[int]:
        return _open_tasks(self._directories())

    def join_fds_below(self, subgroups: Mapping[str, str]) -> Sequence[int]:
        unknown = [name for name in subgroups if name and name not in self._by_controller]
        if unknown:
            raise InvalidArgumentError(f"unknown controller {unknown[0]} in SubCgroupPaths")
        common = subgroups.get("", "")
        wanted = dict.fromkeys(self._directories(), paths.below(common))
        for name, path in subgroups.items():
            if name:
                wanted[self._by_controller[name]] = paths.below(path)
        return _open_tasks([directory + path for directory, path in wanted.items()])

    def exists(self) -> bool:
        return os.path.isdir(self._any_directory())

    def freeze(self, timeout_s: float = 10) -> None:
        state = f"{self._need('freezer', 'frozen state')}/freezer.state"
        deadline = time.monotonic() + timeout_s

        def frozen() -> bool:
            # Written again each time: a process forked meanwhile would keep it at FREEZING.
            files.write(state, "FROZEN")
            return files.read(state) == "FROZEN"

        if not wait_until(frozen, deadline):
            self.thaw()
            raise DeadlineError(f"cgroup {self.path}: not frozen within {timeout_s} s")

    def thaw(self) -> None:
        files.write(f"{self._need('freezer', 'frozen state')}/freezer.state", "THAWED")

    def is_frozen(self) -> bool:
        if "freezer" not in self._by_controller:
            return False
        return files.read(f"{self._by_controller['freezer']}/freezer.state") == "FROZEN"

    def pids(self) -> list[int]:
        return pids_below(self._any_directory())

    def oom_kills(self) -> int:
        if "memory" not in self._by_controller:
            return 0
        table = files.find_table(f"{self._by_controller['memory']}/memory.oom_control")
        return table.get("oom_kill", 0)

    def oom_event_fd(self) -> int | None:
        directory = self._by_controller.get("memory")
        if directory is None:
            return None
        event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control_fd = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.write(f"{directory}/cgroup.event_control", f"{event_fd} {control_fd}")
            finally:
                os.close(control_fd)
        except OSError as exc:
            os.close(event_fd)
            raise CgroupError(exc.errno or 0, "watch", f"{directory}/memory.oom_control") from exc
        return event_fd

    def clear_oom_event(self, fd: int) -> bool:
        try:
            os.eventfd_read(fd)
        except BlockingIOError:
            return True  # taken off already
        return True

    def stats(self) -> dict[str, Any]:
        # Here: no container needs them to start.
        from cais.linux.cgroups import stats_v1

        return stats_v1.collect(self._by_controller)

    def details(self) -> dict[str, Any]:
        # Here: only a person looks at them.
        from cais.linux.cgroups import details_v1

        return details_v1.collect(self._by_controller)

    def _make(self, mount: str, made: list[str]) -> None:
        """Make the group in one hierarchy; add its last directory to ``made`` if it is new."""
        directory = mount + self.path
        try:
            is_new = files.make_directory(directory)
        except CgroupError as exc:
            if exc.errno != errno.ENOENT:
                raise
            is_new = self._make_with_parents(mount)
        if is_new:
            made.append(directory)
        if self._by_controller.get("cpuset") == directory:
            _inherit_cpuset(directory)
        if not is_new and pids_below(directory):
            raise ConflictError(f"container's cgroup is not empty: {self.path}")

    def _make_with_parents(self, mount: str) -> bool:
        """Make the group and what is missing above it; say whether it is new."""
        directory, is_new = mount, False
        for part in self.path.split("/")[1:]:
            directory = f"{directory}/{part}"
            is_new = files.make_directory(directory)
        return is_new

    def _set(self, resources: Resources, rules: list[Any] | None) -> None:
        resources_v1.apply(self._by_controller, resources)
        if rules is None:
            return
        wanted = device_rules.resolve(rules)
        if "devices" in self._by_controller:
            devices_v1.apply(self._by_controller["devices"], wanted)
        elif not wanted.allows_by_default:
            raise UnsupportedLimitError(
                "device limits", "the devices cgroup controller is not mounted"
            )

    def _signal_all(self, signal_number: int) -> None:
        """Freeze first, so that no process forks away between being listed and being killed."""
        freezes = "freezer" in self._by_controller
        if freezes:
            files.write(f"{self._by_controller['freezer']}/freezer.state", "FROZEN")
        try:
            super()._signal_all(signal_number)
        finally:
            if freezes:
                self.thaw()

    def _need(self, controller: str, what: str) -> str:
        if controller not in self._by_controller:
            raise UnsupportedLimitError(what, f"the {controller} cgroup controller is not mounted")
        return self._by_controller[controller]

    def _any_directory(self) -> str:
        # pids is the hierarchy least likely to be rearranged by anyone else.
        for controller in ("freezer", "devices", "pids"):
            if controller in self._by_controller:
                return self._by_controller[controller]
        return self._mounts[0] + self.path

    def _directories(self) -> Sequence[str]:
        return [mount + self.path for mount in self._mounts]


def _open_tasks(directories: Iterable[str]) -> list[int]:
    fds: list[int] = []
    for directory in directories:
        try:
            fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as exc:
            for fd in fds:
                os.close(fd)
            raise CgroupError(exc.errno or 0, "open", f"{directory}/tasks") from exc
    return fds


def _inherit_cpuset(directory: str) -> None:
    """Give an empty set its parent's processors and nodes: it would take no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(f"{directory}/{name}"):
            parent = os.path.dirname(directory)
            if not (value := files.read(f"{parent}/{name}")):
                _inherit_cpuset(parent)  # the hierarchy's root is never empty
                value = files.read(f"{parent}/{name}")
            files.write(f"{directory}/{name}", value)
