"""Health checks: a command run in the container every so often, and what its exit says.

One check at a time; a check past its timeout is killed. While the container starts up, failures
do not count, and ``start_interval`` may be shorter than ``interval``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from cais.engine.killing import SIGKILL
from cais.engine.records import HealthRecord, ProbeRecord
from cais.errors import CaisError
from cais.spec.container import ExecBody

if TYPE_CHECKING:
    import socket

    from cais.engine.core import Core
    from cais.engine.execs import Exec, Execs
    from cais.engine.table import Container
    from cais.spec.container import ContainerConfig, HealthConfig

log = logging.getLogger(__name__)

OUTPUT_LIMIT_BYTES = 4096
_FRAME_HEADER_BYTES = 8
_FRAMED_LIMIT_BYTES = 64 * 1024
_KEPT_PROBES = 5
_NS = 1_000_000_000
_DEFAULT_S = 30.0
_DEFAULT_START_INTERVAL_S = 5.0
_DEFAULT_RETRIES = 3
_KILL_LIMIT_S = 5.0
_TIMED_OUT = -1


def has_health_check(config: ContainerConfig) -> bool:
    """Whether there is a check to run (``NONE`` switches the image's off)."""
    test = config.healthcheck.test if config.healthcheck else None
    return bool(test) and len(test or ()) > 1 and (test or [""])[0] in ("CMD", "CMD-SHELL")


def probe_command(config: ContainerConfig) -> list[str]:
    """Return the command of the check."""
    assert config.healthcheck is not None
    kind, *words = config.healthcheck.test or [""]
    if kind == "CMD":
        return words
    return [*(config.shell or ("/bin/sh", "-c")), *words]


class HealthMonitor:
    """Checks one container until closed."""

    def __init__(self, core: Core, execs: Execs, container: Container) -> None:
        self._core = core
        self._execs = execs
        self._container = container
        check = container.record.config.healthcheck
        assert check is not None
        self._check: HealthConfig = check
        self._task = core.background.spawn(self._run(), f"health-{container.id[:12]}")

    def close(self) -> None:
        """Stop checking; a check under way is forgotten."""
        self._task.cancel()

    async def _run(self) -> None:
        started_s = self._core.clock.monotonic_s()
        while True:
            await self._core.clock.sleep(self._pause_s(started_s))
            is_starting = self._is_starting(started_s)
            probe = await self._probe()
            await self._note(probe, is_starting=is_starting)

    def _is_starting(self, started_s: float) -> bool:
        """Whether failures do not count yet: in the start period, before the first success."""
        health = self._container.record.state.health
        if health is None or health.status != "starting":
            return False
        return self._core.clock.monotonic_s() - started_s < self._check.start_period / _NS

    def _pause_s(self, started_s: float) -> float:
        if self._is_starting(started_s):
            return self._check.start_interval / _NS or _DEFAULT_START_INTERVAL_S
        return self._check.interval / _NS or _DEFAULT_S

    async def _probe(self) -> ProbeRecord:
        start_ns = self._core.clock.wall_ns()
        body = ExecBody(
            cmd=probe_command(self._container.record.config),
            attach_stdout=True,
            attach_stderr=True,
        )
        one = self._execs.new_probe(self._container, body)
        try:
            exit_code, output = await self._run_check(one)
        finally:
            self._execs.forget(one)
        return ProbeRecord(start_ns, self._core.clock.wall_ns(), exit_code, output)

    async def _run_check(self, one: Exec) -> tuple[int, str]:
        """Return the exit code (-1: it took too long) and the beginning of the output."""
        limit_s = self._check.timeout / _NS or _DEFAULT_S
        output = bytearray()
        reading: asyncio.Task[None] | None = None
        try:
            sock = await self._core.shim.client.attach(
                self._container.id, one.id, stdin=False, stdout=True, stderr=True, tty=False
            )
            reading = asyncio.create_task(_read_into(output, sock))
            await self._execs.run(one)
            if await self._core.clock.is_done_within(one.ended, limit_s):
                await self._core.clock.is_done_within(reading, 1.0)
                return one.ended.result(), _text(output)
            await self._kill(one)
        except CaisError as exc:
            return _TIMED_OUT, str(exc)
        finally:
            if reading is not None:
                reading.cancel()
        text = f"Health check exceeded timeout ({_duration(limit_s)})"
        return _TIMED_OUT, ": ".join(filter(None, (text, _text(output))))

    async def _kill(self, one: Exec) -> None:
        await self._core.shim.client.kill(self._container.id, SIGKILL, exec_id=one.id)
        await self._core.clock.is_done_within(one.ended, _KILL_LIMIT_S)

    async def _note(self, probe: ProbeRecord, *, is_starting: bool) -> None:
        state = self._container.record.state
        if not state.running or self._container.health is not self:
            return
        health = state.health = state.health or HealthRecord()
        before = health.status
        retries = self._check.retries or _DEFAULT_RETRIES
        update_health(health, probe, retries=retries, is_starting=is_starting)
        self._core.state.put_later(self._container.record)
        if health.status != before:
            self._core.announce(self._container, f"health_status: {health.status}")
            await self._core.state.settle()


def update_health(
    health: HealthRecord, probe: ProbeRecord, *, retries: int, is_starting: bool
) -> None:
    """Add a check's outcome: one success is healthy, ``retries`` failures in a row are not."""
    health.log = [*health.log, probe][-_KEPT_PROBES:]
    if probe.exit_code == 0:
        health.failing_streak = 0
        health.status = "healthy"
    elif not is_starting:
        health.failing_streak += 1
        if health.failing_streak >= retries:
            health.status = "unhealthy"


async def _read_into(output: bytearray, sock: socket.socket) -> None:
    """Keep the beginning of what a check prints, read the rest so that it does not block."""
    with contextlib.closing(sock):
        while block := await asyncio.get_running_loop().sock_recv(sock, 65536):
            output += block[: _FRAMED_LIMIT_BYTES - len(output)]


def _text(framed: bytes | bytearray) -> str:
    """Return the beginning of what stdcopy frames hold; the last one may be cut."""
    output = bytearray()
    while len(framed) > _FRAME_HEADER_BYTES and len(output) < OUTPUT_LIMIT_BYTES:
        end = _FRAME_HEADER_BYTES + int.from_bytes(framed[4:_FRAME_HEADER_BYTES], "big")
        output += framed[_FRAME_HEADER_BYTES:end]
        framed = framed[end:]
    return bytes(output[:OUTPUT_LIMIT_BYTES]).decode(errors="replace")


def _duration(seconds: float) -> str:
    return f"{seconds:g}s"
