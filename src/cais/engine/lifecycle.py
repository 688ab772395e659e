"""What moves a container between its states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import asyncio

WaitCondition = Literal["not-running", "next-exit", "removed"]


class WaitResult(NamedTuple):
    """How a waited-for container ended; ``error`` only when waiting itself failed."""

    status_code: int
    error: str | None = None


class Lifecycle:
    """Start, stop, kill, pause and wait."""

    async def start(self, ref: str) -> None:
        """Start a container; back when the user's program has been executed.

        A container whose start failed stays ``created`` (or ``exited``) with ``State.Error`` and
        exit code 126, 127 or 128, and is removed if it is auto-remove.

        Raises:
            NotModifiedError: it runs.
            ConflictError: it is paused, or being removed.
            LaunchFailedError: Docker's text, which the CLI turns into 125, 126 or 127
                (an InvalidArgumentError for the command not found family, else internal).

        """
        raise NotImplementedError

    async def stop(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> None:  # noqa: ASYNC109
        """Send the stop signal, after ``timeout`` seconds SIGKILL; back when it has ended.

        Args:
            ref: name or id.
            signal: instead of the container's or image's own stop signal.
            timeout: seconds; -1 for ever; None for the container's own or the default.

        Raises:
            NotModifiedError: it does not run.

        """
        raise NotImplementedError

    async def restart(
        self, ref: str, *, signal: str | None = None, timeout: int | None = None  # noqa: ASYNC109
    ) -> None:
        """Stop if running, then start."""
        raise NotImplementedError

    async def kill(self, ref: str, signal: str | None = None) -> None:
        """Send a signal (name with or without SIG, or number); back at once.

        Raises:
            InvalidArgumentError: no such signal.
            ConflictError: the container is not running.

        """
        raise NotImplementedError

    async def pause(self, ref: str) -> None:
        """Freeze every process. ConflictError: not running, or already paused."""
        raise NotImplementedError

    async def unpause(self, ref: str) -> None:
        """Thaw. ConflictError: not paused."""
        raise NotImplementedError

    def wait(
        self, ref: str, condition: WaitCondition = "not-running"
    ) -> asyncio.Future[WaitResult]:
        """Register for the end of a container. Not a coroutine: registered when it returns.

        Cancel the future to let go. ``removed`` also ends if the removal fails (``error`` set).

        Raises:
            ContainerNotFoundError: no such container.
            InvalidArgumentError: unknown condition.

        """
        raise NotImplementedError

    async def top(self, ref: str, ps_args: str = "") -> dict[str, Any]:
        """Return ``{Titles, Processes}`` of the host's ps, only the container's processes.

        Raises:
            ConflictError: not running.
            InvalidArgumentError: ps refuses the arguments, or they hide the pid.

        """
        raise NotImplementedError

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Tell the container's terminal its window size. ConflictError: not running."""
        raise NotImplementedError
