"""Control groups that systemd makes: a scope unit for each container.

A container's ``cgroupsPath`` is ``slice:prefix:name`` then, and its group is
``<slice>/<prefix>-<name>.scope``. systemd makes, and removes, the directory; the scope is
delegated, so everything below is ours, and processes join as in any group. The limits are told to
systemd, which would undo them at its next reload otherwise, and written here as well, since not
every file of cgroup v2 has a property.

A scope starts with a process in it and goes when it is empty, so until the container's first
process has been cloned into it a *holder* stays there: a copy of this process that does nothing.

Spec: OCI runtime-spec 1.2, config-linux.md "Cgroups Path"; systemd.scope(5); the names and
properties are runc's.
"""
# ruff: noqa: D102 - the methods are documented on Cgroup

from __future__ import annotations

import os
from signal import SIGKILL, pidfd_send_signal

from cais.errors import ConflictError, InvalidArgumentError, UnavailableError, UnsupportedError
from cais.linux import namespaces, process
from cais.linux.cgroups import files, systemd_properties
from cais.linux.cgroups.group import pids_below
from cais.linux.cgroups.paths import check_unit, expand_slice, is_systemd_path
from cais.linux.cgroups.systemd_manager import Manager, is_running
from cais.linux.cgroups.v2 import CgroupV2
from cais.linux.dbus import DbusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups.detect import Hierarchy
    from cais.linux.cgroups.systemd_manager import Properties
    from cais.spec.runtime import Resources

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel


class SystemdCgroup(CgroupV2):
    """The scope of one container."""

    __slots__ = ("_holder", "_name", "_oom_kills", "_slice", "unit")

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        if hierarchy.version != 2:
            raise UnsupportedError("the systemd cgroup driver needs a host with cgroup v2 alone")
        self._slice, prefix, self._name = _parse(path)
        self.unit = f"{prefix}-{self._name}.scope" if prefix else f"{self._name}.scope"
        check_unit(self.unit)
        self._holder: Holder | None = None
        self._oom_kills = 0
        super().__init__(hierarchy, f"{_manager_group()}{expand_slice(self._slice)}/{self.unit}")

    def create(self, resources: Resources) -> None:
        if pids_below(self._directory):
            raise ConflictError(f"container's cgroup is not empty: {self.path}")
        if not _is_in_hosts_pid_namespace():
            raise UnsupportedError("the systemd cgroup driver needs the host's pid namespace")
        rules = resources.get("devices", [])
        self._holder = Holder()
        try:
            with Manager() as manager:
                version = manager.version()
                unit = systemd_properties.describe(
                    self._name, self._slice, self._holder.pid, version
                )
                limits = systemd_properties.limits(resources, self._directory, version)
                manager.start(self.unit, [*unit, *limits, *systemd_properties.devices(rules)])
            self._set(resources, rules)
        except BaseException:
            self.remove()
            raise

    def entered(self) -> None:
        if self._holder is not None:
            self._holder.release()
            self._holder = None

    def apply(self, resources: Resources) -> None:
        with Manager() as manager:
            version = manager.version()
            properties: Properties = systemd_properties.limits(resources, self._directory, version)
            if "devices" in resources:
                properties += systemd_properties.devices(resources["devices"])
            if properties:
                manager.change(self.unit, properties)
        super().apply(resources)

    def oom_kills(self) -> int:
        # The directory goes with the last process: what was counted before counts.
        self._oom_kills = max(self._oom_kills, super().oom_kills())
        return self._oom_kills

    def clear_oom_event(self, fd: int) -> bool:
        if (events := files.reread_table(fd)) is None:
            return False
        self._oom_kills = max(self._oom_kills, events.get("oom_kill", 0))
        return True

    def pids(self) -> list[int]:
        holder = self._holder.pid if self._holder else None
        return [pid for pid in super().pids() if pid != holder]

    def remove(self, timeout_s: float = 5) -> None:
        self.entered()
        if files.find_text(f"{self._directory}/cgroup.procs") is None:
            return  # systemd saw that it was empty
        with Manager() as manager:
            manager.stop(self.unit)
        super().remove(timeout_s)

    def remove_if_empty(self) -> bool:
        return False  # the unit has to be stopped, too


class Holder:
    """A process that waits; it ends with this one, if not before."""

    __slots__ = ("_pidfd", "_write_fd", "pid")

    def __init__(self) -> None:
        read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC)
        self.pid, self._pidfd = process.clone(0)
        if self.pid == 0:
            _wait_forever(read_fd)
        os.close(read_fd)

    def release(self) -> None:
        """End it and reap it; not to be called twice."""
        pidfd_send_signal(self._pidfd, SIGKILL)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        os.close(self._write_fd)


def _parse(path: str) -> tuple[str, str, str]:
    if not is_systemd_path(path):
        raise InvalidArgumentError(
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f"got {path[:128]!r} instead"
        )
    slice_name, prefix, name = path.split(":")
    return slice_name or _default_slice(), prefix, name


def _is_in_hosts_pid_namespace() -> bool:
    """Whether systemd knows processes by the numbers they have here; others would be moved."""
    return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID_NAMESPACE


def _default_slice() -> str:
    return "system.slice" if namespaces.uid_outside() == 0 else "user.slice"


def _manager_group() -> str:
    """Return the group of the systemd that is asked: the host's root, or the user's own."""
    uid = namespaces.uid_outside()
    if uid == 0:
        return ""
    usual = f"/user.slice/user-{uid}.slice/user@{uid}.service"
    if not is_running():
        return usual
    try:
        with Manager() as manager:
            return manager.group()
    except (DbusError, UnavailableError):  # to be told by who wants more of it than its place
        return usual


def _wait_forever(read_fd: int) -> None:
    try:
        process.close_all_but([read_fd])
        os.read(read_fd, 1)  # its end: the other process is gone
    finally:
        os._exit(0)
