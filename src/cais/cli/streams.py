"""Between the user's descriptors and an attached container or exec, until either side ends.

Two directions, two threads of control: this one writes what the container says, a second feeds
standard input, because a full pipe in one direction must not stop the other.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING

from cais.cli.terminal import is_terminal, on_resize, raw_mode
from cais.client.hijack import STDERR, SYSTEM_ERROR, demultiplex
from cais.errors import CaisError, InternalError
from cais.spec.detach_keys import DetachScanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cais.client import Hijacked

READ_BYTES = 65536
STDIN_FD, STDOUT_FD, STDERR_FD = 0, 1, 2


class Detached(CaisError):  # noqa: N818 - an outcome, reported as Docker reports it
    """The user typed the detach keys; ``run`` and ``start`` end quietly, the others say it."""

    def __init__(self) -> None:
        super().__init__("read escape sequence")


class Pump:
    """Moves bytes between our standard descriptors and ``stream``, which it borrows.

    Args:
        stream: an attached container or exec.
        terminal: raw bytes instead of frames; our terminal becomes raw.
        stdin: whether to feed standard input.
        detach_keys: what lets go of a terminal, as bytes.
        resize: called with (height, width) as the window changes.

    """

    def __init__(
        self,
        stream: Hijacked,
        *,
        terminal: bool,
        stdin: bool,
        detach_keys: bytes = b"",
        resize: Callable[[int, int], None] | None = None,
    ) -> None:
        self._stream = stream
        self._terminal = terminal
        self._stdin = stdin
        self._scanner = DetachScanner(detach_keys if terminal else b"")
        self._resize = resize
        self._detached = threading.Event()

    def run(self) -> None:
        """Return when the container's output has ended.

        Raises:
            Detached: the user let go.

        """
        with contextlib.ExitStack() as stack:
            if self._terminal and self._stdin and is_terminal(STDIN_FD):
                stack.enter_context(raw_mode(STDIN_FD))
            if self._terminal and self._resize and is_terminal(STDOUT_FD):
                stack.enter_context(on_resize(STDOUT_FD, self._resize))
            if self._stdin:
                stack.enter_context(self._feeding())
            if self._terminal:
                copy_raw(self._stream.pieces())
            else:
                copy_frames(self._stream.pieces())
        if self._detached.is_set():
            raise Detached

    @contextlib.contextmanager
    def _feeding(self) -> Iterator[None]:
        stop_fd, stopper_fd = os.pipe()
        feeder = threading.Thread(target=self._feed, args=(stop_fd,), daemon=True)
        feeder.start()
        try:
            yield
        finally:
            os.close(stopper_fd)
            feeder.join()
            os.close(stop_fd)

    def _feed(self, stop_fd: int) -> None:
        poll = select.poll()
        for descriptor in (STDIN_FD, stop_fd):
            poll.register(descriptor, select.POLLIN)
        with contextlib.suppress(OSError):  # the container's side is gone: its end says the rest
            while self._feed_once({fd for fd, _ in poll.poll()}, stop_fd):
                pass

    def _feed_once(self, ready: set[int], stop_fd: int) -> bool:
        if stop_fd in ready:
            return False
        data = os.read(STDIN_FD, READ_BYTES)
        if not data:
            self._stream.close_stdin()
            return False
        passed, detached = self._scanner.feed(data)
        if passed:
            self._stream.send(passed)
        if detached:
            self._detached.set()
            self._stream.shut_down()
        return not detached


def copy_raw(pieces: Iterable[bytes]) -> None:
    """Write bytes to standard output as they come."""
    for piece in pieces:
        write_all(STDOUT_FD, piece)


def copy_frames(pieces: Iterable[bytes]) -> None:
    """Write each frame's payload to standard output or standard error.

    Raises:
        InternalError: the daemon reports a failure in the stream itself.

    """
    for stream, payload in demultiplex(pieces):
        if stream == SYSTEM_ERROR:
            raise InternalError(payload.decode(errors="backslashreplace").strip())
        write_all(STDERR_FD if stream == STDERR else STDOUT_FD, payload)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
