"""What foreign runtimes have under way: commands, their files, and changes nobody waits for."""

from __future__ import annotations

import os
from signal import SIGKILL

from cais.errors import DeadlineError, InternalError, NotFoundError
from cais.shim.foreign_command import has_ended
from cais.shim.foreign_desk import Desk
from cais.shim.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.shim.foreign_command import Command
    from cais.shim.loop import Loop

    Done = Callable[[], None]
    Failed = Callable[[BaseException], None]


class Commands:
    """The commands of one shim's foreign runtimes: those under way, and where their files go."""

    def __init__(self, loop: Loop, report: Callable[[BaseException], None]) -> None:
        """``report`` logs what nobody asked for and failed."""
        self.loop = loop
        self.report = report
        self.deletions: dict[str, int] = {}
        """By container: an eventfd that tells the end of the deletion under way."""

        self._under_way: set[Command] = set()
        self._desks: dict[str, int] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a command runs: children may exist that nobody can name yet."""
        return bool(self._under_way)

    def open_desk(self, root: str) -> Desk:
        """Make the directory of one command; before the first, delete what a dead shim left."""
        directory = f"{root}/commands"
        if root not in self._desks:
            self._desks[root] = 0
            for name in _listdir(directory):
                Desk(f"{directory}/{name}", is_new=False).clear()
        self._desks[root] += 1
        return Desk(f"{directory}/{self._desks[root]}")

    def began(self, command: Command) -> Command:
        """Note a command; ``ended`` is called at its end."""
        self._under_way.add(command)
        return command

    def ended(self, command: Command) -> None:
        """Forget a command."""
        self._under_way.discard(command)


class ForeignChange:
    """A command that changes a container, under way (``contracts.Pending``)."""

    def __init__(
        self,
        shared: Commands,
        command: Command,
        desk: Desk,
        ended_fd: int,
        patience_s: float,
    ) -> None:
        """Own the desk and ``ended_fd``, a pidfd whose end explains a failure."""
        self._shared = shared
        self._command = command
        self._desk = desk
        self._ended_fd = ended_fd
        self._patience_s = patience_s
        self._is_late = False

    def then(self, done: Done, failed: Failed) -> None:
        """Call one of both, once, when the command has ended."""
        loop, fd = self._shared.loop, self._command.fileno()
        timer = loop.call_later(self._patience_s, self._lose_patience)

        def ended(_events: int) -> None:
            loop.unwatch(fd)
            timer.cancel()
            try:
                self._conclude()
            except Exception as error:  # noqa: BLE001 - whoever asked must hear it
                failed(error)
            else:
                done()

        loop.watch(fd, READ, ended)

    def _conclude(self) -> None:
        try:
            self._command.finish()
        except InternalError as error:
            if self._is_late:
                text = f"the runtime did not answer in {self._patience_s:.0f} s"
                raise DeadlineError(text) from error
            if self._ended_fd >= 0 and has_ended(self._ended_fd):
                raise NotFoundError("the container has ended") from error
            raise
        finally:
            self._desk.clear()
            if self._ended_fd >= 0:
                os.close(self._ended_fd)

    def _lose_patience(self) -> None:
        self._is_late = True
        os.kill(self._command.pid, SIGKILL)  # our child, not yet reaped: the number is its own


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
