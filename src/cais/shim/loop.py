"""The event loop: descriptors, timers and signals of one single-threaded process.

A callback must not block and may watch, unwatch and close any descriptor. One that raises is
reported and its descriptor is watched no more, so that no fault can spin the loop.
"""

from __future__ import annotations

import heapq
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[int], None]  # called with the events that happened

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP
ERROR = select.EPOLLERR
_MAX_EVENTS = 64  # a round stays short, so that timers and answers are not late


class Timer:
    """A call at a time to come."""

    __slots__ = ("_callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make it never happen. Idempotent."""
        self._callback = None

    def fire(self) -> None:
        """Call it, once."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    @property
    def is_pending(self) -> bool:
        """Whether it will happen."""
        return self._callback is not None

    def __lt__(self, other: Timer) -> bool:
        return self.deadline < other.deadline


class _Watch:
    __slots__ = ("callback", "keep", "round")

    def __init__(self, callback: Callback, round_: int, *, keep: bool) -> None:
        self.callback = callback
        self.round = round_
        self.keep = keep


class Loop:
    """epoll and a heap of timers. ``clock`` is in seconds and monotonic."""

    def __init__(
        self,
        report: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``report`` is told of exceptions that callbacks let out."""
        self._epoll = select.epoll()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[Timer] = []
        self._round = 0
        self._report = report
        self._stopped = False
        self.clock = clock

    def watch(self, fd: int, events: int, callback: Callback, *, keep: bool = False) -> None:
        """Call ``callback`` with what happened whenever ``fd`` is ready; level-triggered.

        Args:
            fd: borrowed; ``unwatch`` it before it is closed.
            events: READ, WRITE or both; HANGUP and ERROR are always told.
            callback: see the module.
            keep: go on watching after ``callback`` has raised.

        """
        self._epoll.register(fd, events)
        self._watches[fd] = _Watch(callback, self._round, keep=keep)

    def rewatch(self, fd: int, events: int) -> None:
        """Change the events ``fd`` is watched for."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no more. Idempotent."""
        if self._watches.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, not before ``delay_s`` seconds have passed."""
        timer = Timer(self.clock() + delay_s, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Serve until ``stop``."""
        while not self._stopped:
            self.run_once(None)

    def run_once(self, timeout_s: float | None) -> None:
        """Wait at most ``timeout_s`` (None: as long as it takes) and serve what has happened."""
        ready = self._epoll.poll(self._wait_s(timeout_s), _MAX_EVENTS)
        self._round += 1
        for fd, events in ready:
            watch = self._watches.get(fd)
            # A descriptor closed and reused by an earlier callback of this round is another one.
            if watch is not None and watch.round < self._round:
                self._call(fd, watch, events)
        now = self.clock()
        while self._timers and self._timers[0].deadline <= now:
            try:
                heapq.heappop(self._timers).fire()
            except Exception as exc:  # noqa: BLE001 - one fault must not end every container
                self._report(exc)

    def stop(self) -> None:
        """Make ``run`` return after this round."""
        self._stopped = True

    def close(self) -> None:
        """Close the epoll descriptor; watched descriptors stay open."""
        self._epoll.close()

    def _call(self, fd: int, watch: _Watch, events: int) -> None:
        try:
            watch.callback(events)
        except Exception as exc:  # noqa: BLE001 - one fault must not end every container
            self._report(exc)
            if not watch.keep and self._watches.get(fd) is watch:
                self.unwatch(fd)

    def _wait_s(self, timeout_s: float | None) -> float | None:
        while self._timers and not self._timers[0].is_pending:
            heapq.heappop(self._timers)
        if not self._timers:
            return timeout_s
        until = max(0.0, self._timers[0].deadline - self.clock())
        return until if timeout_s is None else min(until, timeout_s)
