"""The one interface to a control group of either version.

Life: ``create`` makes the directories and sets the limits; processes join; ``remove`` takes the
directories away once they are empty. Only the group's own directory is removed: its parents
belong to everyone.
"""

from __future__ import annotations

import errno
import os
import select
import time

from cais.errors import DeadlineError
from cais.linux.cgroups import files
from cais.linux.cgroups.files import CgroupError
from cais.linux.cgroups.paths import clean_path, is_systemd_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from cais.linux.cgroups.detect import Hierarchy
    from cais.spec.runtime import Resources

_CALLER = b"0"
SIGKILL = 9  # the signal module would bring enum in
REMOVE_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.0005, 0.05


def join(fds: Sequence[int]) -> None:
    """Move the caller, a single-threaded process, into the group of ``join_fds``; closes them.

    Raises:
        CgroupError: ENODEV, the group is gone.

    """
    for fd in fds:
        try:
            os.write(fd, _CALLER)
        except OSError as error:
            raise CgroupError(error.errno or 0, "join", "the control group") from None
        finally:
            os.close(fd)


class Cgroup:
    """A control group by path; the directories need not exist yet.

    Methods raise CgroupError with the kernel's errno unless they say otherwise; ENOENT means
    that the group does not exist (any more).
    """

    __slots__ = ("path",)

    oom_poll_mask = select.EPOLLIN
    """What poll(2) reports on ``oom_event_fd()`` when something was killed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self, resources: Resources) -> None:
        """Make the group and its missing parents, and set ``resources`` with the device list.

        A document without device rules gets the default list. On failure the group's own
        directory is gone again; parents stay.

        Raises:
            ConflictError: the group exists and holds processes.
            UnsupportedLimitError: this host cannot set a limit that was asked for.
            InvalidArgumentError: values that contradict each other.

        """
        raise NotImplementedError

    def apply(self, resources: Resources) -> None:
        """Change the limits that ``resources`` names, as ``create`` does; others stay."""
        raise NotImplementedError

    def add(self, pid: int) -> None:
        """Move the process ``pid`` with all its threads into the group.

        Blocks: for 8 to 20 ms on v1, see ``join_fds``.
        """
        raise NotImplementedError

    def join_fds(self) -> Sequence[int]:
        """Open the files by which a single-threaded process enters the group, see ``join``.

        Close-on-exec; the caller closes them. Permission was checked at this open, not at the
        write, so a child that has already lost its privileges may use them.
        """
        raise NotImplementedError

    def join_fds_below(self, subgroups: Mapping[str, str]) -> Sequence[int]:
        """Open what ``join_fds`` opens, for groups below this one.

        Args:
            subgroups: controller, or ``""`` for every one, to the path of an existing group.

        Raises:
            InvalidArgumentError: no such controller, or a path that leads out of this group.

        """
        raise NotImplementedError

    def clone_fd(self) -> int | None:
        """Open the directory for clone3's CLONE_INTO_CGROUP; None on v1. The caller closes it."""
        return None

    def entered(self) -> None:
        """Take note that the container's first process is in the group; call it once."""

    def exists(self) -> bool:
        """Whether the group's directory is there."""
        raise NotImplementedError

    def freeze(self, timeout_s: float = 10) -> None:
        """Stop every process of the group and below.

        Raises:
            DeadlineError: some process could not be stopped in time; all run again.

        """
        raise NotImplementedError

    def thaw(self) -> None:
        """Let a frozen group run again; nothing happens to one that runs."""
        raise NotImplementedError

    def is_frozen(self) -> bool:
        """Whether every process of the group is stopped."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Return the processes of the group and below, in this process's pid namespace."""
        raise NotImplementedError

    def kill_all(self, timeout_s: float = 10) -> None:
        """Kill every process of the group and below, frozen or not, and wait until it is empty.

        A zombie counts as gone: reaping is its parent's work.

        Raises:
            DeadlineError: a process survived, stuck in the kernel.

        """
        deadline = time.monotonic() + timeout_s
        for _ in _pauses(deadline):
            if not self.exists() or not self.pids():
                return
            self._signal_all(SIGKILL)
        raise DeadlineError(f"cgroup {self.path}: processes survived being killed: {self.pids()}")

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for memory; 0 without a memory controller."""
        raise NotImplementedError

    def oom_event_fd(self) -> int | None:
        """Open a descriptor that polls ready, with ``oom_poll_mask``, at an out-of-memory event.

        ``clear_oom_event`` makes it wait for the next one. The caller closes it, and should read
        ``oom_kills`` on every event: the removal of the group is reported too.
        """
        raise NotImplementedError

    def clear_oom_event(self, fd: int) -> bool:
        """Take the event off ``fd``; False: the group is gone, and ``fd`` stays ready for ever."""
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """Return counters in bytes, nanoseconds and operations, whatever the version.

        ``{"pids": {"current", "limit"}, "memory": {"usage", "max_usage", "failcnt", "limit",
        "stats": {...}}, "cpu": {"total_ns", "user_ns", "system_ns", "per_cpu_ns", "periods",
        "throttled_periods", "throttled_ns"}, "blkio": {"service_bytes": [{"major", "minor", "op",
        "value"}], "serviced": [...]}}``; a limit of None is no limit, a missing part a missing
        controller.
        """
        raise NotImplementedError

    def details(self) -> dict[str, Any]:
        """Return every counter the kernel has, in the shape ``runc events`` prints."""
        raise NotImplementedError

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Remove the group and those below it; nothing happens if it is not there.

        Blocks: up to ``timeout_s`` while the kernel says EBUSY, which it does until the last
        process is reaped.
        """
        deadline = time.monotonic() + timeout_s
        for directory in self._directories():
            _remove_tree(directory, deadline)

    def remove_if_empty(self) -> bool:
        """Remove the group if nothing is left in it; False: it is there, perhaps not everywhere.

        Blocks: no.
        """
        return all(map(_is_removed, self._directories()))

    def _directories(self) -> Sequence[str]:
        raise NotImplementedError

    def _signal_all(self, signal_number: int) -> None:
        for pid in filter(None, self.pids()):  # 0: of another pid namespace, out of our reach
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                continue


def open_cgroup(hierarchy: Hierarchy, path: str) -> Cgroup:
    """Name a group; nothing is created or checked.

    Args:
        hierarchy: from ``detect()``.
        path: below every mount point of the hierarchy, such as ``/cais/<id>``; ``..`` cannot
            climb out. ``slice:prefix:name`` is a scope that systemd makes.

    Raises:
        InvalidArgumentError: a path without a name in it, or no names of units.
        UnsupportedError: a scope, and this is not a host with cgroup v2 alone.

    """
    if is_systemd_path(path):
        # Here: most hosts' containers never need it.
        from cais.linux.cgroups.systemd import SystemdCgroup

        return SystemdCgroup(hierarchy, path)
    # Here, because both import this module for their base class; and a host has one of them.
    if hierarchy.version == 1:
        from cais.linux.cgroups.v1 import CgroupV1

        return CgroupV1(hierarchy, clean_path(path))
    from cais.linux.cgroups.v2 import CgroupV2

    return CgroupV2(hierarchy, clean_path(path))


def pids_below(directory: str) -> list[int]:
    """Return the processes of a group directory and of those below it."""
    found: list[int] = []
    for group in files.directories(directory):
        found += map(int, (files.find_text(f"{group}/cgroup.procs") or "").split())
    return found


def wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    """Poll ``condition()`` with growing pauses until it holds (True) or the deadline (False)."""
    return any(condition() for _ in _pauses(deadline))


def _pauses(deadline: float) -> Iterator[None]:
    """Yield at once, then after pauses that grow, until the monotonic clock passes ``deadline``."""
    pause = _FIRST_PAUSE_S
    yield
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE_S)
        yield


def _remove_tree(directory: str, deadline: float) -> None:
    if _is_removed(directory):  # nearly always at once: nothing below, nobody inside
        return
    for group in list(files.directories(directory)):
        if not any(_is_removed(group) for _ in _pauses(deadline)):
            raise CgroupError(errno.EBUSY, "rmdir", group)


def _is_removed(group: str) -> bool:
    """Remove one group; False if it is busy: a process is still leaving, or a group is below."""
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise CgroupError(exc.errno or 0, "rmdir", group) from exc
        return False
    return True
