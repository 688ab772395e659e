"""What happens when a container ends: record, tell, and start again or remove."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cais.engine.restart import should_restart
from cais.errors import CaisError, UnavailableError

if TYPE_CHECKING:
    import asyncio

    from cais.engine.core import Core
    from cais.engine.launch import Launcher
    from cais.engine.removal import Remover
    from cais.engine.table import Container
    from cais.shim.values import ExitEvent, OomEvent

log = logging.getLogger(__name__)

UNKNOWN_EXIT_CODE = 255
_LOST_STATUS = "the exit status is not known: the container outlived its shim"


class Exits:
    """Handles exit and out-of-memory events of containers."""

    def __init__(self, core: Core, launcher: Launcher, remover: Remover) -> None:
        self._core = core
        self._launcher = launcher
        self._remover = remover

    async def handle(self, event: ExitEvent) -> None:
        """Record an exit, then acknowledge it. A second delivery changes nothing.

        An exit that arrives while the start is being recorded waits for it (the lock).
        """
        container = self._core.table.find(event.id)
        if container is not None:
            async with container.lock:
                if is_of_present_run(container, event):
                    await self._ended(container, event)
        self._core.shim.acknowledge(event)

    def out_of_memory(self, event: OomEvent) -> None:
        """Note and publish that the kernel killed a process of the container."""
        container = self._core.table.find(event.id)
        if container is not None:
            container.record.state.oom_killed = True
            self._core.announce(container, "oom")

    async def _ended(self, container: Container, event: ExitEvent) -> None:
        run_s = self._record(container, event)
        state = container.record.state
        self._core.announce(
            container,
            "die",
            {"execDuration": str(int(run_s)), "exitCode": str(state.exit_code)},
        )
        self._launcher.release(container)
        if self._wants_restart(container):
            await self._restart_later(container, run_s)
        else:
            await self.settle(container)

    def _record(self, container: Container, event: ExitEvent) -> float:
        """Put the exit into the record; return how long the run was."""
        state = container.record.state
        state.running = state.paused = state.restarting = False
        state.pid = state.start_ticks = 0
        state.exit_code = UNKNOWN_EXIT_CODE if event.code is None else event.code
        state.error = _LOST_STATUS if event.code is None else ""
        state.oom_killed = state.oom_killed or event.oom_killed
        state.finished_at_ns = event.exited_at_ns
        run_s = max(0.0, (event.exited_at_ns - state.started_at_ns) / 1e9)
        if container.run_started_s is not None:  # wall clocks jump
            run_s = self._core.clock.monotonic_s() - container.run_started_s
        if event.log_dropped:
            log.warning("container %s: %d log bytes dropped", container.id, event.log_dropped)
        return run_s

    def _wants_restart(self, container: Container) -> bool:
        record = container.record
        if container.exit_on_next or record.state.removing:
            return False
        return should_restart(
            record.restart_policy.name,
            record.restart_policy.maximum_retry_count,
            exit_code=record.state.exit_code,
            restart_count=record.restart_count,
            is_manually_stopped=record.state.is_manually_stopped,
        )

    async def settle(self, container: Container) -> None:
        """Make the end final and durable; an auto-remove container is removed. Lock held."""
        record = container.record
        record.state.running = record.state.restarting = False
        if record.auto_remove and not record.state.removing and not container.is_kept:
            record.state.removing = True
            await self._remover.erase(container, volumes=True)
            return
        try:
            await self._core.state.put(record)
        finally:
            container.tell_ended()

    async def _restart_later(self, container: Container, run_s: float) -> None:
        state = container.record.state
        state.running = state.restarting = True
        container.record.restart_count += 1
        delay_s = container.backoff.next_delay_s(run_s)
        gate = container.arm_restart()
        await self._core.state.put(container.record)
        self._core.background.spawn(
            self._restart(container, delay_s, gate), f"restart-{container.id[:12]}"
        )

    async def _restart(
        self, container: Container, delay_s: float, gate: asyncio.Future[None]
    ) -> None:
        await self._core.clock.is_done_within(gate, delay_s)
        async with container.lock:
            container.restart_gate = None
            if gate.done() or container.record.state.removing:
                await self.settle(container)
                return
            try:
                await self._launcher.launch(container)
            except CaisError as exc:
                log.warning("container %s cannot be restarted: %s", container.id, exc)
                if isinstance(exc, UnavailableError) and self._wants_restart(container):
                    await self._restart_later(container, 0.0)  # the shim is being replaced
                else:
                    await self.settle(container)


def is_of_present_run(container: Container, event: ExitEvent) -> bool:
    """Whether an exit belongs to what runs now; it may be a repetition of an older one."""
    state = container.record.state
    if not state.running or state.restarting:
        return False
    return state.pid in (0, event.pid)
