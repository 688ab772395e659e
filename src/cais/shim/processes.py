"""One process of a container, first or exec: from the launch to its exit.

``starting`` until the program has been executed, then ``running`` until it is reaped; a launch
that fails or is given up never was.
"""

from __future__ import annotations

import os
import signal
import time

from cais.errors import CaisError, ConflictError, ExhaustedError
from cais.runtime.launch import LaunchError, Stdio
from cais.shim import adoption
from cais.shim.loop import HANGUP, READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.launch import Running
    from cais.shim.contracts import Launch
    from cais.shim.loop import Loop
    from cais.shim.stdio import Streams

    Begin = Callable[[Stdio | None], Launch]

_REAPED_SOON_S = 0.05
_REAPED_TRIES = 20


class Exit:
    """How a process ended; ``code`` None when nobody can tell."""

    __slots__ = ("code", "signal")

    def __init__(self, code: int | None, signal_: int | None) -> None:
        self.code = code
        self.signal = signal_


class Process:
    """Owns the launch, then the pidfd and the streams. Callbacks come from the event loop."""

    def __init__(
        self, loop: Loop, streams: Streams, *, tty: bool, on_exit: Callable[[Exit], None]
    ) -> None:
        """``on_exit`` is called once, after the last output has been passed on."""
        self._loop = loop
        self._on_exit = on_exit
        self._launch: Launch | None = None
        self._go_on: Callable[[int], None] = _nothing
        self._pipes: _Pipes | None = None
        self._fail: Callable[[BaseException], None] | None = None
        self.streams = streams
        self.tty = tty
        self.adopted = False
        self.pid = 0
        self.pidfd = -1
        self.start_ticks = 0
        self.started_at_ns = 0

    @property
    def is_running(self) -> bool:
        """Whether the user's program has been executed and has not ended."""
        return self.pidfd >= 0

    @property
    def known_pids(self) -> set[int]:
        """The children this process accounts for; other code reaps them."""
        pids = {self.pid} if self._launch is None else self._launch.children
        return set(pids) - {0}

    def start(
        self,
        begin: Begin,
        *,
        open_stdin: bool,
        started: Callable[[Running], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Launch the program; exactly one of ``started`` and ``failed`` is called later.

        Raises:
            CaisError: as ``begin``, or no descriptors are left; nothing was started.

        """
        self._pipes = None if self.tty else _open_pipes(open_stdin=open_stdin)
        try:
            self._launch = begin(self._pipes.theirs if self._pipes else None)
        except BaseException as exc:
            self._drop_pipes()
            raise _translated(exc) from exc
        if self._pipes is not None:
            self._pipes.close_theirs()
        self._fail = failed
        self._wait(self._launch, lambda running: self._run(running, started, open_stdin=open_stdin))

    def look(self) -> None:
        """A child has ended: go on with a launch that nobody will speak for any more."""
        if self._launch is not None and self._launch.is_deserted():
            self._go_on(0)

    def abort(self) -> None:
        """Give up a launch under way; ``failed`` is called."""
        if self._launch is not None and self._fail is not None:
            self._loop.unwatch(self._launch.fileno())
            self._launch.abort()
            self._give_up(ConflictError("the start was interrupted"))

    def adopt(self, pid: int, ticks: int) -> None:
        """Watch a process somebody else started. NotFoundError: it is no more."""
        self.pidfd = adoption.open_process(pid, ticks)
        self.pid, self.start_ticks, self.adopted = pid, ticks, True
        tries = _REAPED_TRIES
        self._loop.watch(self.pidfd, READ, lambda events: self._adopted_ended(events, tries))

    def send_signal(self, number: int) -> None:
        """Signal it. ConflictError: it has ended; InvalidArgumentError is the caller's check."""
        if not self.is_running:
            raise ConflictError("the process is not running")
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError as exc:
            raise ConflictError("the process has ended") from exc

    def _wait(self, launch: Launch, run: Callable[[Running], None]) -> None:
        fd = launch.fileno()

        def advance(_events: int) -> None:
            # Unwatched first: the launch closes its descriptor, and its number is soon another's.
            self._loop.unwatch(fd)
            self._go_on = _nothing
            try:
                running = launch.advance()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the requester must hear it
                self._give_up(exc)
                return
            if running is None:
                self._wait(launch, run)
            else:
                self._launch = None
                run(running)

        self._go_on = advance
        self._loop.watch(fd, READ, advance)

    def _run(
        self, running: Running, started: Callable[[Running], None], *, open_stdin: bool
    ) -> None:
        self.pid, self.pidfd = running.pid, running.pidfd
        self.start_ticks = running.start_ticks
        self.started_at_ns = time.time_ns()
        self._fail = None
        self._open_streams(running, open_stdin=open_stdin)
        self._loop.watch(self.pidfd, READ, self._ended)
        started(running)

    def _open_streams(self, running: Running, *, open_stdin: bool) -> None:
        pipes, self._pipes = self._pipes, None
        if running.terminal_fd is not None:
            self.streams.open_terminal(running.terminal_fd, open_stdin=open_stdin)
        elif pipes is not None:
            self.streams.open_pipes(*pipes.ours)

    def _give_up(self, error: BaseException) -> None:
        self._launch = None
        self._drop_pipes()
        failed, self._fail = self._fail, None
        if failed is not None:
            failed(_translated(error))

    def _drop_pipes(self) -> None:
        if self._pipes is not None:
            self._pipes.close()
            self._pipes = None

    def _ended(self, _events: int) -> None:
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if result is None:
            return
        if result.si_code == os.CLD_EXITED:
            self._exit(Exit(result.si_status, None))
        else:
            self._exit(Exit(128 + result.si_status, result.si_status))

    def _adopted_ended(self, events: int, tries: int) -> None:
        status = adoption.exit_status(self.pidfd)
        if status is None and not events & HANGUP and tries > 0:
            self._loop.unwatch(self.pidfd)
            self._loop.call_later(_REAPED_SOON_S, lambda: self._adopted_ended(0, tries - 1))
        elif status is None:
            self._exit(Exit(None, None))
        elif os.WIFSIGNALED(status):
            self._exit(Exit(128 + os.WTERMSIG(status), os.WTERMSIG(status)))
        else:
            self._exit(Exit(os.WEXITSTATUS(status), None))

    def _exit(self, how: Exit) -> None:
        self._loop.unwatch(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        try:
            self.streams.finish()
        finally:
            self._on_exit(how)


class _Pipes:
    """Three pipes: ``theirs`` for the program, ``ours`` (stdin may be -1) for the streams."""

    def __init__(self, theirs: list[int], ours: list[int]) -> None:
        self.theirs = Stdio(*theirs)
        self.ours = ours
        self._theirs_open = theirs

    def close_theirs(self) -> None:
        _close(self._theirs_open)

    def close(self) -> None:
        _close(self._theirs_open)
        _close(self.ours)


def _open_pipes(*, open_stdin: bool) -> _Pipes:
    opened: list[int] = []
    try:
        if open_stdin:
            opened += os.pipe2(os.O_CLOEXEC)
        else:
            opened += os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
    except OSError as exc:
        _close(opened)
        raise ExhaustedError(f"cannot make pipes for a container: {exc}") from exc
    stdin, ours_in, ours_out, stdout, ours_err, stderr = opened
    return _Pipes([stdin, stdout, stderr], [ours_in, ours_out, ours_err])


def _close(fds: list[int]) -> None:
    while fds:
        fd = fds.pop()
        if fd >= 0:
            os.close(fd)


def _nothing(_events: int) -> None:
    pass


def _explained(error: OSError) -> str:
    """Return what failed and why in a sentence, without the error's number."""
    why = error.strerror or str(error)
    return f"{why}: {error.filename}" if error.filename else why


def _translated(error: BaseException) -> BaseException:
    if isinstance(error, OSError) and not isinstance(error, CaisError):
        return LaunchError(_explained(error), errno=error.errno or 0, step="setup")
    return error
