"""More processes in a running container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cais.engine.streams import AttachSession
    from cais.spec.container import ExecBody


class Execs:
    """``/exec``: created, then started once, then inspected."""

    async def create(self, ref: str, body: ExecBody) -> str:
        """Prepare a process in a running container; return the exec's id.

        Raises:
            ConflictError: the container is not running, or paused.
            InvalidArgumentError: no command, malformed user or detach keys.

        """
        raise NotImplementedError

    async def start(
        self,
        exec_id: str,
        *,
        detach: bool = False,
        tty: bool | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> AttachSession | None:
        """Run it; None if ``detach``, else the client's attachment.

        Args:
            exec_id: full id.
            detach: do not attach.
            tty: must agree with the created one when given.
            console_size: height, width.

        Raises:
            NotFoundError: ``No such exec instance: x``.
            ConflictError: started before; the container is paused or not running.
            LaunchFailedError: the program cannot be executed (exit code 126 or 127 is set).

        """
        raise NotImplementedError

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Tell the exec's terminal its window size; waits a moment for it to start."""
        raise NotImplementedError

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """Return the document of ``GET /exec/{id}/json``. Not a coroutine."""
        raise NotImplementedError
