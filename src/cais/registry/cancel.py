"""How a transfer is ended from another thread. Imports nothing of HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from cais.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_S = 0.1


class Cancel:
    """Ends requests from another thread: at a wait at once, in a read with its socket."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def set(self) -> None:
        """End what is under way and refuse what would begin."""
        self._event.set()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._event.is_set()

    def wait_for(self, event: threading.Event) -> None:
        """Wait until ``event`` or this is set. DeadlineError: this was."""
        while not event.wait(_POLL_S):
            self.check()

    def check(self) -> None:
        """Raise DeadlineError if it was set."""
        if self._event.is_set():
            raise DeadlineError("the operation was cancelled")

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until it is set."""
        self._event.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def watch(self, sock: socket.socket | None) -> Iterator[None]:
        """Shut ``sock`` down if it is set meanwhile."""
        if sock is None:
            self.check()
            yield
            return
        with self._lock:
            self._sockets.add(sock)
        try:
            self.check()  # only now: set from here on, it shuts the socket down
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)
