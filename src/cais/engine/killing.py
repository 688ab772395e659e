"""Signals to containers, and what they mean for restarts."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

from cais.engine.errors import NotRunningError
from cais.engine.signals import DEFAULT_STOP_SIGNAL, parse_signal
from cais.errors import ConflictError, DeadlineError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    import asyncio

    from cais.engine.core import Core
    from cais.engine.table import Container, WaitResult

log = logging.getLogger(__name__)

SIGKILL = int(signal.SIGKILL)
_KILL_LIMIT_S = 10.0
"""How long a killed container may take; a process in uninterruptible sleep takes for ever."""


class Killer:
    """Sends signals; the lifecycle decides which and when."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def send(self, container: Container, number: int) -> None:
        """Send a signal; one that is meant to end the container also ends its restarts.

        A paused container is thawed afterwards, so that the signal arrives.

        Raises:
            NotRunningError: it does not run.

        """
        record = container.record
        if not record.state.running:
            raise NotRunningError(container.id)
        is_meant_to_end = is_stop_signal(container, number)
        if is_meant_to_end:
            container.exit_on_next = True
        await self._note_manual_stop(container)
        if record.state.restarting:
            container.cancel_restart()
            return
        await self._deliver(container, number)
        if is_meant_to_end and record.state.paused:
            await self._thaw(container)
        self._core.announce(container, "kill", {"signal": str(number)})

    async def end(self, container: Container, ended: asyncio.Future[WaitResult]) -> None:
        """Kill and wait until the end is recorded.

        Raises:
            DeadlineError: the kernel does not end it.

        """
        if container.record.state.running:
            await self.send(container, SIGKILL)
        if not await self._core.clock.is_done_within(ended, _KILL_LIMIT_S):
            raise DeadlineError(
                f"container {container.id} did not end within {_KILL_LIMIT_S:.0f} s of SIGKILL: "
                "a process hangs in the kernel"
            )

    async def _note_manual_stop(self, container: Container) -> None:
        state = container.record.state
        if state.is_manually_stopped:
            return
        state.is_manually_stopped = True
        if container.record.restart_policy.name not in ("", "no"):
            await self._core.state.put(container.record)  # must hold if the daemon dies now

    async def _deliver(self, container: Container, number: int) -> None:
        try:
            await self._core.shim.client.kill(container.id, number)
        except NotFoundError:
            log.debug("container %s has ended before signal %d", container.id, number)
        except UnavailableError:
            if container.record.state.running:
                raise

    async def _thaw(self, container: Container) -> None:
        try:
            await self._core.shim.client.resume(container.id)
        except (ConflictError, NotFoundError):
            return  # somebody else thawed it, or it is gone
        container.record.state.paused = False


def stop_signal_of(container: Container) -> int:
    """Return the signal that asks this container to end."""
    text = container.record.config.stop_signal
    return parse_signal(text) if text else DEFAULT_STOP_SIGNAL


def is_stop_signal(container: Container, number: int) -> bool:
    """Whether a signal is meant to end the container: without a stop signal of its own, any is."""
    return (
        not container.record.config.stop_signal
        or number == SIGKILL
        or number == stop_signal_of(container)
    )
