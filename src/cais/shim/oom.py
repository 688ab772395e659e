"""Out-of-memory kills of one container, told as they happen."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.linux.cgroups import Cgroup
    from cais.shim.loop import Loop, Timer

_COUNT_DELAY_S = 0.05  # cgroup v1 announces the kill before it counts it


class OomWatch:
    """Watches a control group; one descriptor. ``tell`` is called once for any number of kills."""

    def __init__(self, loop: Loop, group: Cgroup, tell: Callable[[], None]) -> None:
        """Watch from now on; a group without a memory controller tells nothing.

        Raises:
            OSError: no descriptor is left.

        """
        self._loop = loop
        self._group = group
        self._tell = tell
        self._told = 0
        self._recount: Timer | None = None
        self._fd = group.oom_event_fd()
        if self._fd is not None:
            loop.watch(self._fd, group.oom_poll_mask, self._happened)

    def close(self) -> None:
        """Tell what has not been told and watch no more. Idempotent."""
        if self._fd is None:
            return
        if self._recount is not None:
            self._recount.cancel()
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = None
        self._count()

    def _happened(self, _events: int) -> None:
        assert self._fd is not None
        if not self._group.clear_oom_event(self._fd):
            self._loop.unwatch(self._fd)
        if self._recount is None or not self._recount.is_pending:
            self._recount = self._loop.call_later(_COUNT_DELAY_S, self._count)

    def _count(self) -> None:
        kills = self._group.oom_kills()
        if kills > self._told:
            self._told = kills
            self._tell()
