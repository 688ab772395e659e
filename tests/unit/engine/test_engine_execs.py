"""Execs, attachments and health checks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cais.engine.errors import CommandLaunchError, ExecNotFoundError, NotRunningError
from cais.engine.health import update_health
from cais.engine.records import HealthRecord, ProbeRecord
from cais.errors import ConflictError, InvalidArgumentError
from cais.runtime.launch import LaunchError
from cais.spec.container import ExecBody, HealthConfig
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    import socket

SECOND = 1_000_000_000


async def test_an_exec_from_creation_to_its_end(bench: Any) -> None:
    container_id = await bench.run("web")
    execs = bench.engine.execs
    exec_id = await execs.create("web", ExecBody(cmd=["echo", "x"], attach_stdout=True))
    assert execs.inspect(exec_id)["Running"] is False
    session = await execs.start(exec_id)
    session.close()
    assert execs.inspect(exec_id)["Running"] is True
    assert (await bench.engine.containers.inspect("web"))["ExecIDs"] == [exec_id]
    with pytest.raises(ConflictError, match=f"Exec command {exec_id} is already running"):
        await execs.start(exec_id)
    bench.shim.end_exec(container_id, exec_id, 4)
    document = execs.inspect(exec_id)
    assert (document["Running"], document["ExitCode"], document["CanRemove"]) == (False, 4, True)
    assert (document["ProcessConfig"]["entrypoint"], document["ProcessConfig"]["arguments"]) == (
        "echo",
        ["x"],
    )
    with pytest.raises(ConflictError, match=f"Exec command {exec_id} has already run"):
        await execs.start(exec_id)
    assert bench.actions()[2:] == ["exec_create: echo x", "exec_start: echo x", "exec_die"]
    assert bench.shim.unacknowledged == {}


async def test_execs_need_a_running_container(bench: Any) -> None:
    container_id = await bench.create("web")
    execs = bench.engine.execs
    body = ExecBody(cmd=["true"])
    with pytest.raises(NotRunningError, match=f"^container {container_id} is not running$"):
        await execs.create("web", body)
    await bench.engine.lifecycle.start("web")
    exec_id = await execs.create("web", body)
    await bench.engine.lifecycle.pause("web")
    with pytest.raises(ConflictError, match="is paused, unpause the container before exec"):
        await execs.start(exec_id)
    with pytest.raises(InvalidArgumentError, match="No exec command specified"):
        await execs.create("web", ExecBody())
    with pytest.raises(ExecNotFoundError, match=r"^No such exec instance: nothing$"):
        execs.inspect("nothing")


async def test_an_exec_that_cannot_start_has_an_exit_code(bench: Any) -> None:
    await bench.run("web")
    exec_id = await bench.engine.execs.create("web", ExecBody(cmd=["x"], attach_stdout=True))
    bench.shim.refuse = LaunchError(
        'exec: "x": executable file not found in $PATH', kind="not-found"
    )
    with pytest.raises(CommandLaunchError, match="OCI runtime exec failed: exec failed: "):
        await bench.engine.execs.start(exec_id)
    assert bench.engine.execs.inspect(exec_id)["ExitCode"] == 127


async def test_execs_are_forgotten_with_the_container_and_after_a_while(bench: Any) -> None:
    container_id = await bench.run("web")
    execs = bench.engine.execs
    first = await execs.create("web", ExecBody(cmd=["true"]))
    await execs.start(first, detach=True)
    bench.shim.end_exec(container_id, first)
    assert execs.inspect(first)["ExitCode"] == 0
    await bench.clock.advance(400)
    second = await execs.create("web", ExecBody(cmd=["true"]))
    with pytest.raises(ExecNotFoundError):
        execs.inspect(first)
    await bench.engine.containers.remove("web", force=True)
    with pytest.raises(ExecNotFoundError):
        execs.inspect(second)


async def test_resize_waits_for_the_start(bench: Any) -> None:
    container_id = await bench.run("web")
    execs = bench.engine.execs
    exec_id = await execs.create("web", ExecBody(cmd=["sh"], tty=True))
    resizing = asyncio.create_task(execs.resize(exec_id, 24, 80))
    await bench.clock.advance(1)
    assert not resizing.done()
    await execs.start(exec_id, detach=True)
    await asyncio.wait_for(resizing, PATIENCE_S)
    assert ("resize", container_id, exec_id, "24x80") in bench.shim.calls


async def test_attach_gives_detach_keys_only_to_terminals(bench: Any) -> None:
    await bench.create("tty", tty=True, open_stdin=True)
    session = await bench.engine.streams.attach("tty", stdin=True, stdout=True, stream=True)
    assert (session.tty, session.detach_keys) == (True, b"\x10\x11")
    session.on_detach()
    session.close()
    await bench.create("plain", open_stdin=True)
    session = await bench.engine.streams.attach("plain", stdin=True, stdout=True, stream=True)
    assert (session.tty, session.detach_keys) == (False, b"")
    session.close()
    await bench.run("frozen")
    await bench.engine.lifecycle.pause("frozen")
    with pytest.raises(ConflictError, match="is paused, unpause the container before attach"):
        await bench.engine.streams.attach("frozen", stream=True)
    assert "detach" in bench.actions()


def probe(exit_code: int) -> ProbeRecord:
    return ProbeRecord(1, 2, exit_code)


def test_health_needs_failures_in_a_row() -> None:
    health = HealthRecord()
    update_health(health, probe(1), retries=2, is_starting=True)
    assert (health.status, health.failing_streak) == ("starting", 0)
    update_health(health, probe(1), retries=2, is_starting=False)
    assert (health.status, health.failing_streak) == ("starting", 1)
    update_health(health, probe(0), retries=2, is_starting=False)
    assert (health.status, health.failing_streak) == ("healthy", 0)
    for _ in range(2):
        update_health(health, probe(1), retries=2, is_starting=False)
    assert (health.status, health.failing_streak) == ("unhealthy", 2)
    for _ in range(9):
        update_health(health, probe(0), retries=2, is_starting=False)
    assert len(health.log) == 5


def frame(text: bytes) -> bytes:
    return b"\1\0\0\0" + len(text).to_bytes(4, "big") + text


async def finish_probe(bench: Any, code: int, output: bytes) -> None:
    """End the check that runs now."""
    ((container_id, exec_id),) = bench.shim.execs
    sock: socket.socket = bench.shim.attached[-1]
    sock.sendall(output)
    sock.close()
    bench.shim.end_exec(container_id, exec_id, code)
    await bench.clock.advance(0)


async def test_health_checks_run_and_are_told(bench: Any) -> None:
    check = HealthConfig(["CMD-SHELL", "test -e /x"], interval=2 * SECOND, retries=1)
    container_id = await bench.run("web", healthcheck=check)

    async def health() -> Any:
        return (await bench.engine.containers.inspect("web"))["State"]["Health"]

    assert (await health())["Status"] == "starting"
    await bench.clock.advance(1.9)
    assert bench.shim.execs == {}
    await bench.clock.advance(0.2)
    await finish_probe(bench, 0, frame(b"fine\n") + frame(b"x" * 9000))
    document = await health()
    assert document["Status"] == "healthy"
    assert document["Log"][0]["ExitCode"] == 0
    assert document["Log"][0]["Output"].startswith("fine\nxxx")
    assert len(document["Log"][0]["Output"]) == 4096
    await bench.clock.advance(2.1)
    await finish_probe(bench, 1, b"")
    assert (await health())["Status"] == "unhealthy"
    told = [one for one in bench.actions() if one.startswith("health_status")]
    assert told == ["health_status: healthy", "health_status: unhealthy"]
    await bench.end(container_id, 0)
    await bench.clock.advance(100)
    assert bench.shim.execs == {}


async def test_a_check_that_takes_too_long_is_killed_and_none_overlap(bench: Any) -> None:
    check = HealthConfig(["CMD", "hang"], interval=SECOND, timeout=3 * SECOND, retries=1)
    await bench.run("web", healthcheck=check)
    await bench.clock.advance(1.1)
    assert len(bench.shim.execs) == 1
    await bench.clock.advance(2.5)
    assert len(bench.shim.execs) == 1
    await bench.clock.advance(1)
    health = (await bench.engine.containers.inspect("web"))["State"]["Health"]
    assert health["Status"] == "unhealthy"
    assert health["Log"][0]["ExitCode"] == -1
    assert health["Log"][0]["Output"] == "Health check exceeded timeout (3s)"
    assert any(call[0] == "kill" and call[2] for call in bench.shim.calls)


async def test_a_paused_container_is_not_checked(bench: Any) -> None:
    await bench.run("web", healthcheck=HealthConfig(["CMD", "true"], interval=SECOND))
    await bench.engine.lifecycle.pause("web")
    await bench.clock.advance(10)
    assert bench.shim.execs == {}
    await bench.engine.lifecycle.unpause("web")
    await bench.clock.advance(1.5)
    assert len(bench.shim.execs) == 1
