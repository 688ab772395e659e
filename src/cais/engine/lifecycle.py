"""What moves a container between its states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cais.engine.errors import (
    AlreadyStartedError,
    AlreadyStoppedError,
    NotRunningError,
    RestartingError,
)
from cais.engine.killing import SIGKILL, stop_signal_of
from cais.engine.processes import list_processes
from cais.engine.signals import parse_signal
from cais.engine.table import WaitResult
from cais.errors import ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    import asyncio

    from cais.engine.checkpoints import Checkpoints
    from cais.engine.core import Core
    from cais.engine.killing import Killer
    from cais.engine.launch import Launcher
    from cais.engine.removal import Remover
    from cais.engine.table import Container

__all__ = ["Lifecycle", "WaitCondition", "WaitResult"]

WaitCondition = Literal["not-running", "next-exit", "removed"]


class Lifecycle:
    """Start, stop, kill, pause and wait."""

    def __init__(
        self,
        core: Core,
        launcher: Launcher,
        killer: Killer,
        remover: Remover,
        checkpoints: Checkpoints,
    ) -> None:
        self._core = core
        self._launcher = launcher
        self._killer = killer
        self._remover = remover
        self._checkpoints = checkpoints

    async def start(self, ref: str, checkpoint: str = "") -> None:
        """Start a container; back when the user's program has been executed.

        With a ``checkpoint`` its processes go on where they were when it was written.

        A container whose start failed stays ``created`` (or ``exited``) with ``State.Error`` and
        exit code 126, 127 or 128, and is removed if it is auto-remove.

        Raises:
            AlreadyStartedError: it runs.
            ConflictError: it is paused, or being removed.
            NotFoundError: no such checkpoint.
            CommandLaunchError: the command cannot be executed; the CLI makes it 126 or 127.
            ContainerLaunchError: anything else; the CLI makes it 125.

        """
        container = self._core.table.resolve(ref)
        await self._core.background.complete(self._start(container, checkpoint), "start")

    async def stop(
        self,
        ref: str,
        *,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - Docker's stop timeout, not the call's
    ) -> None:
        """Send the stop signal, after ``timeout`` seconds SIGKILL; back when it has ended.

        Args:
            ref: name or id.
            signal: instead of the container's or image's own stop signal.
            timeout: seconds; negative for ever; None for the container's own or the default.

        Raises:
            AlreadyStoppedError: it does not run.
            InvalidSignalError: no such signal.

        """
        container = self._core.table.resolve(ref)
        number = parse_signal(signal) if signal else stop_signal_of(container)
        if not container.record.state.running:
            raise AlreadyStoppedError(ref)
        await self._core.background.complete(self._stop(container, number, timeout), "stop")

    async def restart(
        self,
        ref: str,
        *,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - Docker's stop timeout, not the call's
    ) -> None:
        """Stop if running, then start; an auto-remove container survives this stop.

        Goes on to the end even if the caller is cancelled.
        """
        container = self._core.table.resolve(ref)
        number = parse_signal(signal) if signal else stop_signal_of(container)
        await self._core.background.complete(self._restart(container, number, timeout), "restart")

    async def kill(self, ref: str, signal: str | None = None) -> None:
        """Send a signal (name with or without SIG, or number); after SIGKILL wait for the end.

        Raises:
            InvalidSignalError: no such signal.
            NotRunningError: the container does not run.

        """
        container = self._core.table.resolve(ref)
        number = parse_signal(signal) if signal else SIGKILL
        if not container.record.state.running:
            raise NotRunningError(container.id, f"cannot kill container: {ref}: ")
        if number == SIGKILL:
            ended = container.wait_ended()
            await self._core.background.complete(self._killer.end(container, ended), "kill")
        else:
            await self._killer.send(container, number)

    async def pause(self, ref: str, *, for_commit: bool = False) -> None:
        """Freeze every process.

        Args:
            ref: name or id.
            for_commit: a daemon that does not live to thaw it shall do so when it starts again.

        Raises:
            NotRunningError: it does not run.
            ConflictError: it is paused already, or restarting.

        """
        container = self._core.table.resolve(ref)
        async with container.lock:
            state = container.record.state
            if not state.running:
                raise NotRunningError(container.id)
            if state.paused:
                raise ConflictError(f"container {container.id} is already paused")
            if state.restarting:
                raise RestartingError(container.id)
            state.paused_for_commit = for_commit
            if for_commit:  # written first: from the next line on we may be killed
                await self._core.state.put(container.record)
            await self._on_shim(container, self._core.shim.client.pause(container.id))
            state.paused = True
            await self._core.state.put(container.record)
        self._launcher.probe(container)
        self._core.announce(container, "pause")

    async def unpause(self, ref: str) -> None:
        """Thaw. ConflictError: it is not paused."""
        container = self._core.table.resolve(ref)
        async with container.lock:
            if not container.record.state.paused:
                raise ConflictError(f"container {container.id} is not paused")
            await self._on_shim(container, self._core.shim.client.resume(container.id))
            container.record.state.paused = False
            await self._core.state.put(container.record)
        self._launcher.probe(container)
        self._core.announce(container, "unpause")

    def wait(
        self, ref: str, condition: WaitCondition = "not-running"
    ) -> asyncio.Future[WaitResult]:
        """Register for the end of a container. Not a coroutine: registered when it returns.

        Cancel the future to let go. ``removed`` also ends if the removal fails (``error`` set).

        Raises:
            ContainerNotFoundError: no such container.
            InvalidArgumentError: unknown condition.

        """
        container = self._core.table.resolve(ref)
        if condition == "removed":
            return container.wait_removed()
        if condition not in ("not-running", "next-exit"):
            raise InvalidArgumentError(f'invalid condition: "{condition}"')
        future = container.wait_ended()
        state = container.record.state
        if condition == "not-running" and not state.running:
            future.set_result(WaitResult(state.exit_code))
        return future

    async def top(self, ref: str, ps_args: str = "") -> dict[str, Any]:
        """Return ``{Titles, Processes}`` of the host's ps, only the container's processes.

        Raises:
            NotRunningError: it does not run.
            InvalidArgumentError: ps refuses the arguments, or they hide the pid.

        """
        container = self._core.table.resolve(ref)
        state = container.record.state
        if not state.running:
            raise NotRunningError(container.id)
        if state.restarting:
            raise RestartingError(container.id)
        listing = await self._core.threads.run(list_processes, state.pid, ps_args or "-ef")
        self._core.announce(container, "top")
        return listing

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Tell the container's terminal its window size. NotRunningError: it does not run."""
        container = self._core.table.resolve(ref)
        if not container.record.state.running:
            raise NotRunningError(container.id)
        resizing = self._core.shim.client.resize(container.id, height=height, width=width)
        await self._on_shim(container, resizing)
        self._core.announce(container, "resize", {"height": str(height), "width": str(width)})

    async def _start(self, container: Container, checkpoint: str = "") -> None:
        async with container.lock:
            state = container.record.state
            if state.paused:
                raise ConflictError("cannot start a paused container, try unpause instead")
            if state.running:
                raise AlreadyStartedError(container.id)
            if state.removing or state.dead or self._core.table.find(container.id) is None:
                raise ConflictError("container is marked for removal and cannot be started")
            found = self._checkpoints.find(container, checkpoint) if checkpoint else None
            container.begin_anew()
            try:
                await self._launcher.launch(container, found)
            except BaseException:
                if container.record.auto_remove:
                    state.removing = True
                    await self._remover.erase(container, volumes=True)
                raise

    async def _stop(self, container: Container, number: int, limit_s: int | None) -> None:
        """Come back when the container has ended, whoever ended it."""
        ended = container.wait_ended()
        try:
            await self._killer.send(container, number)
        except NotRunningError:
            ended.cancel()  # it ended meanwhile
            return
        if limit_s is None:
            limit_s = container.record.config.stop_timeout
        if limit_s is None:
            limit_s = self._core.config.default_stop_timeout_s
        deadline_s = None if limit_s < 0 else float(limit_s)
        if not await self._core.clock.is_done_within(ended, deadline_s):
            await self._killer.end(container, ended)
        self._core.announce(container, "stop")

    async def _restart(self, container: Container, number: int, limit_s: int | None) -> None:
        if container.record.state.running:
            container.is_kept = True
            try:
                await self._stop(container, number, limit_s)
            finally:
                container.is_kept = False
        await self._start(container)
        self._core.announce(container, "restart")

    async def _on_shim(self, container: Container, request: Any) -> None:  # noqa: ANN401 - awaitable
        """Do a request; a container the shim has no more has just ended."""
        try:
            await request
        except NotFoundError as exc:
            raise NotRunningError(container.id) from exc
