"""Checkpoints of our own runtime's containers: written and gone on from by ``cais-runtime``.

CRIU is a program that takes seconds, so it is run by a command, as for another runtime
(``foreign``). The command knows the container for its own length only; before and after it is the
shim's: the command leaves the control group, the hooks and what has been restored to it.

    <root>/state/<id>/     what the command knows of the container
    <root>/commands/<n>/   cais.shim.foreign_desk
"""

from __future__ import annotations

import os
import sys

from cais.linux import process
from cais.runtime import command, state
from cais.shim.foreign_launch import Adopted, ForeignLaunch, KeptStreams
from cais.shim.foreign_program import CHECKPOINT_S, ForeignProgram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.launch import Stdio
    from cais.shim.contracts import Pending
    from cais.shim.foreign_changes import Commands
    from cais.shim.foreign_launch import Steps


class OwnCheckpoints:
    """See the module, and ``contracts.Checkpoints`` for each method."""

    def __init__(self, shared: Commands, root: str) -> None:
        """``root`` is a directory for what commands need."""
        self._program = ForeignProgram(shared, sys.executable, command.arguments(), root)

    def checkpoint(
        self,
        container_id: str,
        bundle: str,
        init_pidfd: int,
        directory: str,
        *,
        leave_running: bool,
    ) -> Pending:
        """Write its processes into ``directory``."""
        pid = process.pid_of(init_pidfd)
        place = self._forget(container_id)
        state.reserve(self._program.state, container_id)
        state.keep_documents(place, bundle)
        state.save(place, container_id, bundle, pid, process.start_ticks(pid))
        stay = "--leave-running" if leave_running else "--keep"
        words = ["checkpoint", stay, *_images(directory), container_id]
        try:
            change = self._program.change(words, self._program.open_desk(), patience_s=CHECKPOINT_S)
        except BaseException:
            state.discard(place)
            raise
        return _Remembered(change, place)

    def begin_restore(
        self,
        container_id: str,
        bundle: str,
        checkpoint: str,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> ForeignLaunch:
        """Start a container from a checkpoint."""
        os.makedirs(self._program.state, 0o700, exist_ok=True)
        words = ["restore", "--detach", *_images(checkpoint), "--bundle", bundle]
        return ForeignLaunch(self._restore(container_id, words, stdio, size))

    def _restore(
        self, id_: str, words: list[str], stdio: Stdio | None, size: tuple[int, int] | None
    ) -> Steps:
        kept = KeptStreams(stdio)
        place = self._forget(id_)
        try:
            with self._program.open_desk() as desk:
                yield self._program.spawn([*words, "--pid-file", desk.file("pid"), id_], desk, kept)
                return Adopted(desk, has_terminal=stdio is None, size=size).hand_over()
        finally:
            kept.close()
            state.discard(place)

    def _forget(self, id_: str) -> str:
        """Delete what a command has left of a container that was killed; return its place."""
        place = f"{self._program.state}/{id_}"
        state.discard(place)
        return place


class _Remembered:
    """A change under way, whose command's knowledge of the container goes with its end."""

    def __init__(self, change: Pending, place: str) -> None:
        self._change = change
        self._place = place

    def then(self, done: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        """Call one of both, once, when the command has ended."""

        def succeed() -> None:
            state.discard(self._place)
            done()

        def fail(error: BaseException) -> None:
            state.discard(self._place)
            failed(error)

        self._change.then(succeed, fail)


def _images(directory: str) -> list[str]:
    return ["--image-path", directory, "--work-path", directory]
