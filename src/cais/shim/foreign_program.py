"""One foreign runtime's program as somebody configured it, and how its commands are run."""

from __future__ import annotations

import os

from cais.shim.foreign_changes import ForeignChange
from cais.shim.foreign_command import spawn
from cais.shim.foreign_launch import KeptStreams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.shim.foreign_changes import Commands
    from cais.shim.foreign_command import Command
    from cais.shim.foreign_desk import Desk

_PATIENCE_S = 60.0
"""How long a command may take that only changes a container: then it is killed."""
CHECKPOINT_S = 900.0
"""The same for one that writes all the memory of a container."""


class ForeignProgram:
    """See the module."""

    def __init__(self, shared: Commands, path: str, arguments: Sequence[str], root: str) -> None:
        """``arguments`` stand before every command's; ``root`` is the runtime's directory."""
        self.shared = shared
        self.state = f"{root}/state"
        self._path = path
        self._arguments = arguments
        self._root = root

    def open_desk(self) -> Desk:
        """Make the directory of one command's files."""
        return self.shared.open_desk(self._root)

    def change(
        self,
        words: list[str],
        desk: Desk,
        ended_fd: int = -1,
        patience_s: float = _PATIENCE_S,
    ) -> ForeignChange:
        """Start a command that only changes a container; it owns the desk and ``ended_fd``."""
        try:
            command = self.spawn(words, desk)
            return ForeignChange(self.shared, command, desk, ended_fd, patience_s)
        except BaseException:
            desk.clear()
            if ended_fd >= 0:
                os.close(ended_fd)
            raise

    def spawn(
        self,
        words: Sequence[str],
        desk: Desk,
        kept: KeptStreams | None = None,
        complete: Callable[[], None] | None = None,
        flags: int = 0,
    ) -> Command:
        """Start a command; ``kept`` streams are its own, and closed here."""
        log = ["--root", self.state, "--log", desk.file("log"), "--log-format", "json"]
        kept = kept or KeptStreams(None)
        try:
            command = spawn(
                self._path,
                [*self._arguments, *log, *words],
                desk,
                self.shared.ended,
                streams=kept.fds,
                complete=complete,
                flags=flags,
            )
        finally:
            kept.close()
        return self.shared.began(command)
