"""The standard streams of one process: between its pipes or terminal, the log and its clients.

    client ──▶ Streams.take_input ──▶ Input ──▶ pipe | terminal
    pipe | terminal ──▶ Output ──▶ Streams.take_output ──▶ log, every client

Nothing is buffered here beyond one read: a full pipe of the program stops the reading of its input
clients, and a client whose backlog is full stops the reading of the program's output.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time

from cais.linux import terminal
from cais.shim.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.shim.attachment import Attachment
    from cais.shim.logs import ContainerLog
    from cais.shim.loop import Loop

_READ_SIZE = 256 << 10
_PIPE_SIZE = 1 << 20
_SMALL_PIPE = 64 << 10  # what the kernel gives; a reader that finds it full asks for more
_DRAIN_LIMIT = 4 << 20  # more than pipes and terminals hold: beyond it somebody still writes

_output_buffer = memoryview(bytearray(_READ_SIZE))


class Output:
    """The end of a pipe or terminal a process writes to. Owns ``fd``."""

    __slots__ = ("_fd", "_grown", "_loop", "_paused", "_take", "is_open", "name")

    def __init__(
        self, loop: Loop, fd: int, name: str, take: Callable[[str, bytes], None], *, tty: bool
    ) -> None:
        """Read ``fd`` from now on and give what comes to ``take``, under ``name``."""
        self._loop = loop
        self._fd = fd
        self._take = take
        self._grown = tty
        self._paused = False
        self.name = name
        self.is_open = True
        os.set_blocking(fd, False)
        loop.watch(fd, READ, self._ready)

    def pause(self) -> None:
        """Read no more until ``resume``."""
        if self.is_open and not self._paused:
            self._paused = True
            self._loop.unwatch(self._fd)  # not a mask of 0: a hang-up would be told all the time

    def resume(self) -> None:
        """Read again."""
        if self.is_open and self._paused:
            self._paused = False
            self._loop.watch(self._fd, READ, self._ready)

    def drain(self) -> None:
        """Read what is there and close."""
        left = _DRAIN_LIMIT
        while self.is_open and left > 0 and (count := self._read()):
            left -= count
        self.close()

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.is_open:
            self.is_open = False
            self._loop.unwatch(self._fd)
            os.close(self._fd)

    def _ready(self, _events: int) -> None:
        self._read()

    def _read(self) -> int:
        """Read once; return how much there was, 0 at the end and when nothing is there now."""
        try:
            count = os.readv(self._fd, [_output_buffer])
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno != errno.EIO:  # a terminal nobody has open any more
                raise
            count = 0
        if not count:
            self.close()
            return 0
        if count >= _SMALL_PIPE and not self._grown:
            self._grown = True
            _enlarge(self._fd)
        self._take(self.name, bytes(_output_buffer[:count]))
        return count


class Input:
    """The end of a pipe or terminal a process reads from. Owns ``fd``."""

    __slots__ = ("_ending", "_fd", "_grown", "_has_room", "_loop", "_rest", "is_open")

    def __init__(
        self, loop: Loop, fd: int, has_room: Callable[[], None], *, tty: bool = False
    ) -> None:
        """``has_room`` is called when a write that did not fit has been finished."""
        self._loop = loop
        self._fd = fd
        self._has_room = has_room
        self._rest = memoryview(b"")
        self._grown = tty
        self._ending = False
        self.is_open = True
        os.set_blocking(fd, False)

    @property
    def is_full(self) -> bool:
        """Whether something is still waiting to be written."""
        return len(self._rest) > 0

    @property
    def takes_more(self) -> bool:
        """False once the program has closed it or somebody has ended it."""
        return self.is_open and not self._ending

    def write(self, data: bytes) -> None:
        """Write ``data``, the rest later; call it only while ``takes_more`` and not ``is_full``."""
        self._rest = memoryview(data)
        self._write()
        if self.is_full and not self._grown:
            self._grown = True
            _enlarge(self._fd)
            self._write()
        if self.is_full:
            self._loop.watch(self._fd, WRITE, self._ready)

    def end(self) -> None:
        """Close once everything has been written."""
        self._ending = True
        if not self.is_full:
            self.close()

    def close(self) -> None:
        """Close the descriptor now; drop what was not written. Idempotent."""
        if self.is_open:
            self.is_open = False
            self._rest = memoryview(b"")
            self._loop.unwatch(self._fd)
            os.close(self._fd)

    def _ready(self, _events: int) -> None:
        self._write()
        if self.is_full:
            return
        if self.is_open:
            self._loop.unwatch(self._fd)
            if self._ending:
                self.close()
        self._has_room()

    def _write(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE: the program closed it; EIO: nobody has the terminal open
            self.close()


class Streams:
    """All of the above for one process.

    ``close_on_end``: the end of a client's input is the end of the program's (Docker's StdinOnce,
    and every exec, without a terminal); otherwise it only ends that client's attachment.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        log: ContainerLog | None,
        close_on_end: bool,
        spill_directory: str,
    ) -> None:
        """Nothing is open yet; ``attach`` may come before ``open``."""
        self._loop = loop
        self._log = log
        self._close_on_end = close_on_end
        self._spill_directory = spill_directory
        self._outputs: list[Output] = []
        self._input: Input | None = None
        self._clients: list[Attachment] = []
        self._opened = False
        self._terminal_fd = -1

    @property
    def log_dropped(self) -> int:
        """How many log entries the disk refused."""
        return self._log.dropped if self._log is not None else 0

    def open_pipes(self, stdin_fd: int, stdout_fd: int, stderr_fd: int) -> None:
        """Serve these ends of pipes, owned from now on; ``stdin_fd`` may be -1."""
        self._outputs = [
            Output(self._loop, stdout_fd, "stdout", self._take_output, tty=False),
            Output(self._loop, stderr_fd, "stderr", self._take_output, tty=False),
        ]
        if stdin_fd >= 0:
            self._input = Input(self._loop, stdin_fd, self._resume_inputs)
        self._open_clients()

    def open_terminal(self, terminal_fd: int, *, open_stdin: bool) -> None:
        """Serve the master side of a terminal, owned from now on."""
        self._terminal_fd = terminal_fd
        if open_stdin:
            writer_fd = fcntl.fcntl(terminal_fd, fcntl.F_DUPFD_CLOEXEC, 3)
            self._input = Input(self._loop, writer_fd, self._resume_inputs, tty=True)
        self._outputs = [Output(self._loop, terminal_fd, "stdout", self._take_output, tty=True)]
        self._open_clients()

    def attach(self, client: Attachment) -> None:
        """Add a client, owned from now on."""
        self._clients.append(client)
        if self._opened:
            client.open(self, self._spill_directory)

    def resize(self, height: int, width: int) -> bool:
        """Set the terminal's size; return False if there is no terminal, or not any more."""
        if self._terminal_fd < 0 or not self._outputs[0].is_open:
            return False
        terminal.set_size(self._terminal_fd, height, width)
        return True

    def finish(self) -> None:
        """Pass on what is left, finish the log, and let the clients go. Idempotent."""
        for output in self._outputs:
            output.drain()
        if self._input is not None:
            self._input.close()
        if self._log is not None:
            self._log.finish(time.time_ns())
        for client in self._clients[:]:
            client.finish()

    def take_input(self, client: Attachment, data: bytes) -> None:
        """Feed ``data`` to the program (attachment.Owner)."""
        if self._input is None or not self._input.takes_more:
            client.refuse_input()
            return
        self._input.write(data)
        if self._input.is_full:
            for each in self._clients:
                each.pause_input()

    def end_input(self, client: Attachment) -> None:
        """The client will send no more (attachment.Owner)."""
        if not self._close_on_end:
            client.finish()
        elif self._input is not None:
            self._input.end()

    def has_room(self, client: Attachment) -> None:  # noqa: ARG002 - one of several
        """The client's backlog is not full any more (attachment.Owner)."""
        if not any(each.is_full for each in self._clients):
            for output in self._outputs:
                output.resume()

    def forget(self, client: Attachment) -> None:
        """The client is closed (attachment.Owner)."""
        if client in self._clients:
            self._clients.remove(client)
        self.has_room(client)

    def _open_clients(self) -> None:
        self._opened = True
        for client in self._clients[:]:
            client.open(self, self._spill_directory)

    def _resume_inputs(self) -> None:
        for client in self._clients[:]:
            client.resume_input()

    def _take_output(self, stream: str, data: bytes) -> None:
        if self._log is not None:
            self._log.feed(stream, data, time.time_ns())
        for client in self._clients[:]:
            client.send(stream, data)
        if any(client.is_full for client in self._clients):
            for output in self._outputs:
                output.pause()


def _enlarge(pipe_fd: int) -> None:
    # The user's allowance for pipes may be used up: slower then, not wrong.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe_fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
