"""A start or an exec by a foreign runtime: its commands one after the other, never waited for.

- start: ``delete --force`` of what an earlier run left; ``create``, which makes the first
  process, an orphan that becomes the shim's child; ``start``, which lets it execute the program.
- exec: ``exec --detach``, which makes a process likewise.
"""

from __future__ import annotations

import contextlib
import os
from signal import SIGKILL, pidfd_send_signal

from cais.linux import terminal
from cais.linux.process import start_ticks
from cais.runtime.launch import LaunchError, Running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Protocol

    from cais.runtime.launch import Stdio
    from cais.shim.foreign_desk import Desk

    class Step(Protocol):
        """Something under way: a command, or the end of one that somebody else watches."""

        def fileno(self) -> int:
            """Return what becomes readable at its end."""

        def finish(self) -> None:
            """Take note of the end; raise if it failed."""

        def abort(self) -> None:
            """Give it up."""

    Steps = Generator[Step, None, Running]
    Waits = Generator[Step, None, None]


class ForeignLaunch:
    """Runs a generator of steps (``contracts.Launch``); its value is what is running then.

    An error of a step is raised where the generator stands; ``abort`` closes it there.
    """

    children: frozenset[int] = frozenset()

    def __init__(self, steps: Steps) -> None:
        """Begin. CaisError: the first step cannot even be started."""
        self._steps = steps
        self._step = next(steps)

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``advance`` can make progress."""
        return self._step.fileno()

    def advance(self) -> Running | None:
        """Take the next step; None while there are more."""
        try:
            self._step.finish()
        except Exception as exc:  # noqa: BLE001 - the steps decide what it means
            error = exc
            return self._go_on(lambda: self._steps.throw(error))
        return self._go_on(lambda: next(self._steps))

    def is_deserted(self) -> bool:
        """No: every step is told by its descriptor."""
        return False

    def abort(self) -> None:
        """Kill what is under way and clean up; idempotent."""
        self._step.abort()
        self._steps.close()

    def _go_on(self, go: Callable[[], Step]) -> Running | None:
        try:
            self._step = go()
        except StopIteration as end:
            running: Running = end.value
            return running
        return None


class Ending:
    """The end of something that somebody else watches: a step to wait for it."""

    def __init__(self, ended_fd: int) -> None:
        """Wait until ``ended_fd`` (an eventfd, borrowed for this call) is written to."""
        self._fd = os.dup(ended_fd)

    def fileno(self) -> int:
        """As a command's."""
        return self._fd

    def finish(self) -> None:
        """Let go of it, however it ended."""
        self.abort()

    def abort(self) -> None:
        """Wait no more; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class KeptStreams:
    """Copies of a process's streams, for a command that is started only after the start returned.

    Empty without streams: for a terminal, and for a command that makes no process.
    """

    def __init__(self, stdio: Stdio | None) -> None:
        """Borrow ``stdio`` for the length of this call."""
        streams = [stdio.stdin, stdio.stdout, stdio.stderr] if stdio is not None else []
        self.fds: list[int] = []
        try:
            for fd in streams:
                self.fds.append(os.dup(fd))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close them; idempotent."""
        while self.fds:
            os.close(self.fds.pop())


class Adopted:
    """A process a runtime made, before it is handed over as ``Running``; owns its descriptors."""

    def __init__(self, desk: Desk, *, has_terminal: bool, size: tuple[int, int] | None) -> None:
        """Take what the desk says.

        Raises:
            LaunchError: there is no such child.

        """
        self._pidfd = self._terminal_fd = -1
        self._pid = desk.read_pid()
        try:
            self._pidfd = os.pidfd_open(self._pid)
            self._check_parent()
            if has_terminal:
                self._terminal_fd = desk.take_terminal()
                if size is not None:
                    terminal.set_size(self._terminal_fd, *size)
        except OSError as exc:
            self.give_up()
            raise LaunchError(f"the process the runtime made is gone: {exc.strerror}") from exc
        except BaseException:
            self.give_up()
            raise

    def hand_over(self) -> Running:
        """Return what runs; descriptors are the caller's from now on."""
        terminal_fd = self._terminal_fd if self._terminal_fd >= 0 else None
        running = Running(self._pid, self._pidfd, start_ticks(self._pid), terminal_fd, [])
        self._pidfd = self._terminal_fd = -1
        return running

    def give_up(self) -> None:
        """Kill it; the shim's sweep reaps it. Idempotent."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                pidfd_send_signal(self._pidfd, SIGKILL)
        for fd in (self._pidfd, self._terminal_fd):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._terminal_fd = -1

    def _check_parent(self) -> None:
        """Make sure that it became ours: only of a child the end is known and the pid kept."""
        with open(f"/proc/{self._pid}/stat", "rb") as file:
            stat = file.read()
        parent = int(stat[stat.rindex(b")") + 2 :].split()[1])
        if parent != os.getpid():
            os.close(self._pidfd)  # not killed: it is a stranger's
            self._pidfd = -1
            raise LaunchError(f"process {self._pid}, which the runtime named, is not its orphan")
