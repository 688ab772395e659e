"""Waking log followers when their container writes: one inotify instance for the daemon.

Where the host's inotify limits are used up, followers look every ``POLL_S`` instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from cais.linux.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

POLL_S = 0.1
_HEARTBEAT_S = 5.0
"""Followers look at least this often: file systems without inotify exist."""


class LogWatch:
    """Who waits for changes in which directory."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._followers: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def follow(self, directory: str) -> Iterator[LogChanges]:
        """Watch a directory for the length of the block."""
        wake = asyncio.Event()
        watch = self._add(directory, wake)
        try:
            yield LogChanges(wake, POLL_S if watch is None else _HEARTBEAT_S)
        finally:
            if watch is not None:
                self._remove(watch, wake)

    def close(self) -> None:
        """Stop watching everything; followers are woken."""
        for wake in self._all():
            wake.set()
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _add(self, directory: str, wake: asyncio.Event) -> int | None:
        try:
            if self._inotify is None:
                self._inotify = Inotify()
                asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
            watch = self._inotify.watch_directory(directory)
        except OSError as exc:
            log.warning("log followers look every %s s: %s", POLL_S, exc)
            return None
        self._followers.setdefault(watch, set()).add(wake)
        return watch

    def _remove(self, watch: int, wake: asyncio.Event) -> None:
        followers = self._followers.get(watch, set())
        followers.discard(wake)
        if not followers:
            self._followers.pop(watch, None)
            if self._inotify is not None:
                self._inotify.forget(watch)

    def _readable(self) -> None:
        if self._inotify is None:
            return
        watches = self._inotify.read()
        changed = (
            self._all()
            if watches is None
            else [wake for watch in watches for wake in self._followers.get(watch, ())]
        )
        for wake in changed:
            wake.set()

    def _all(self) -> list[asyncio.Event]:
        return [wake for followers in self._followers.values() for wake in followers]


class LogChanges:
    """One follower's side of a watch."""

    def __init__(self, wake: asyncio.Event, look_every_s: float) -> None:
        self._wake = wake
        self._look_every_s = look_every_s

    def arm(self) -> None:
        """Forget what was seen: call before reading to the end, then ``wait``."""
        self._wake.clear()

    def wake(self) -> None:
        """End the wait."""
        self._wake.set()

    async def wait(self, limit_s: float | None = None) -> None:
        """Return when something may have changed since ``arm``, or the limit has passed."""
        pause_s = self._look_every_s if limit_s is None else min(limit_s, self._look_every_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause_s)
