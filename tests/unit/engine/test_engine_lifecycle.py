"""States, waits, stops and removals as Docker has them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from quiet_loop import settle

from cais.engine.errors import (
    AlreadyStartedError,
    AlreadyStoppedError,
    CommandLaunchError,
    ContainerNotFoundError,
    NotRunningError,
    RemovalInProgressError,
)
from cais.errors import ConflictError, InvalidArgumentError
from cais.runtime.launch import LaunchError
from cais.testing.waiting import PATIENCE_S


async def test_a_run_goes_through_created_running_exited(bench: Any) -> None:
    container_id = await bench.create("web")
    assert await bench.status("web") == "created"
    await bench.engine.lifecycle.start("web")
    assert await bench.status("web") == "running"
    await bench.end(container_id, 3)
    state = (await bench.engine.containers.inspect("web"))["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 3, 0)
    assert bench.actions() == ["create", "start", "die"]
    assert bench.shim.unacknowledged == {}
    assert bench.network.attached == {}


async def test_start_of_a_running_and_stop_of_a_stopped_container_change_nothing(
    bench: Any,
) -> None:
    container_id = await bench.run()
    with pytest.raises(AlreadyStartedError):
        await bench.engine.lifecycle.start(container_id)
    await bench.end(container_id)
    with pytest.raises(AlreadyStoppedError):
        await bench.engine.lifecycle.stop(container_id)


async def test_wait_registered_before_the_start_never_misses(bench: Any) -> None:
    container_id = await bench.create()
    waited = bench.engine.lifecycle.wait(container_id, "next-exit")
    removed = bench.engine.lifecycle.wait(container_id, "removed")
    bench.shim.ends_at_once = 7
    await bench.engine.lifecycle.start(container_id)
    assert (await asyncio.wait_for(waited, PATIENCE_S)).status_code == 7
    assert not removed.done()
    await bench.engine.containers.remove(container_id)
    assert (await asyncio.wait_for(removed, PATIENCE_S)) == (7, None)


async def test_wait_for_what_does_not_run_returns_its_code(bench: Any) -> None:
    container_id = await bench.run()
    await bench.end(container_id, 4)
    assert (await bench.engine.lifecycle.wait(container_id)).status_code == 4
    with pytest.raises(InvalidArgumentError, match='invalid condition: "soon"'):
        bench.engine.lifecycle.wait(container_id, "soon")


async def test_auto_remove_leaves_nothing_and_answers_both_waits(bench: Any) -> None:
    container_id = await bench.create("gone", auto_remove=True)
    ended = bench.engine.lifecycle.wait(container_id, "next-exit")
    removed = bench.engine.lifecycle.wait(container_id, "removed")
    await bench.engine.lifecycle.start(container_id)
    await bench.end(container_id, 9)
    assert (await asyncio.wait_for(ended, PATIENCE_S)).status_code == 9
    assert (await asyncio.wait_for(removed, PATIENCE_S)).status_code == 9
    with pytest.raises(ContainerNotFoundError):
        bench.engine.containers.resolve("gone")
    await bench.core.background.quiesce()
    assert bench.snapshots.active == {}
    assert list(bench.core.paths.containers.iterdir()) == []
    assert bench.actions() == ["create", "start", "die", "destroy"]
    await bench.create("gone")


async def test_stop_sends_the_stop_signal_then_kills(bench: Any) -> None:
    container_id = await bench.run(stop_signal="SIGUSR1")
    bench.shim.ignores_signals = {10}
    stopping = asyncio.create_task(bench.engine.lifecycle.stop(container_id, timeout=5))
    await bench.clock.advance(4.9)
    assert await bench.status(container_id) == "running"
    await bench.clock.advance(0.2)
    await asyncio.wait_for(stopping, PATIENCE_S)
    kills = [call[-1] for call in bench.shim.calls if call[0] == "kill"]
    assert kills == ["10", "9"]
    assert bench.actions()[2:] == ["kill", "kill", "die", "stop"]


async def test_stop_for_ever_waits_for_the_container(bench: Any) -> None:
    container_id = await bench.run()
    bench.shim.ignores_signals = {15}
    stopping = asyncio.create_task(bench.engine.lifecycle.stop(container_id, timeout=-1))
    await bench.clock.advance(100000)
    assert not stopping.done()
    await bench.end(container_id)
    await asyncio.wait_for(stopping, PATIENCE_S)


async def test_a_stop_outlives_its_client(bench: Any) -> None:
    container_id = await bench.run()
    bench.shim.ignores_signals = {15}
    stopping = asyncio.create_task(bench.engine.lifecycle.stop(container_id, timeout=5))
    await settle()
    stopping.cancel()
    await bench.clock.advance(6)
    assert await bench.status(container_id) == "exited"


async def test_kill_waits_for_the_end_only_after_sigkill(bench: Any) -> None:
    container_id = await bench.run()
    bench.shim.ignores_signals = {1}
    await bench.engine.lifecycle.kill(container_id, "HUP")
    assert await bench.status(container_id) == "running"
    await bench.engine.lifecycle.kill(container_id)
    assert await bench.status(container_id) == "exited"
    with pytest.raises(NotRunningError, match=f"cannot kill container: {container_id}: container"):
        await bench.engine.lifecycle.kill(container_id)
    with pytest.raises(InvalidArgumentError, match="invalid signal: NOPE"):
        await bench.engine.lifecycle.kill(container_id, "NOPE")


async def test_pause_and_its_conflicts(bench: Any) -> None:
    container_id = await bench.run()
    lifecycle = bench.engine.lifecycle
    with pytest.raises(ConflictError, match="is not paused"):
        await lifecycle.unpause(container_id)
    await lifecycle.pause(container_id)
    assert await bench.status(container_id) == "paused"
    with pytest.raises(ConflictError, match="is already paused"):
        await lifecycle.pause(container_id)
    with pytest.raises(ConflictError, match="cannot start a paused container"):
        await lifecycle.start(container_id)
    with pytest.raises(ConflictError, match="container is paused and must be unpaused first"):
        await bench.engine.containers.remove(container_id)
    await lifecycle.unpause(container_id)
    assert await bench.status(container_id) == "running"


async def test_a_paused_container_is_thawed_so_that_it_can_die(bench: Any) -> None:
    container_id = await bench.run()
    await bench.engine.lifecycle.pause(container_id)
    bench.shim.ignores_signals = {15}
    stopping = asyncio.create_task(bench.engine.lifecycle.stop(container_id, timeout=1))
    await settle()
    assert not bench.shim.running[container_id].paused
    assert (await bench.engine.containers.inspect(container_id))["State"]["Paused"] is False
    await bench.clock.advance(2)
    await asyncio.wait_for(stopping, PATIENCE_S)


@pytest.mark.parametrize(
    ("kind", "message", "exit_code", "failure"),
    [
        ("not-found", 'exec: "x": executable file not found in $PATH', 127, CommandLaunchError),
        ("not-permitted", 'exec: "x": permission denied', 126, CommandLaunchError),
        ("setup", "mount /x: no such device", 128, Exception),
    ],
)
async def test_a_failed_start_keeps_the_container_and_says_why(
    bench: Any, kind: Any, message: str, exit_code: int, failure: type[Exception]
) -> None:
    container_id = await bench.create()
    bench.shim.refuse = LaunchError(message, kind=kind)
    with pytest.raises(failure, match="unable to start container process"):
        await bench.engine.lifecycle.start(container_id)
    state = (await bench.engine.containers.inspect(container_id))["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", exit_code)
    assert message in state["Error"]
    assert ("detach", container_id, "") in bench.shim.calls
    await bench.core.background.quiesce()
    assert bench.network.attached == {}
    await bench.engine.lifecycle.start(container_id)
    assert (await bench.engine.containers.inspect(container_id))["State"]["Error"] == ""


async def test_a_failed_start_removes_an_auto_remove_container(bench: Any) -> None:
    container_id = await bench.create(auto_remove=True)
    removed = bench.engine.lifecycle.wait(container_id, "removed")
    bench.shim.refuse = LaunchError("no", kind="not-found")
    with pytest.raises(CommandLaunchError):
        await bench.engine.lifecycle.start(container_id)
    assert (await asyncio.wait_for(removed, PATIENCE_S)).status_code == 127
    assert len(bench.core.table) == 0


async def test_remove_refuses_what_runs_and_force_kills_it(bench: Any) -> None:
    container_id = await bench.run("web")
    with pytest.raises(
        ConflictError,
        match=r'^cannot remove container "/web": container is running: '
        r"stop the container before removing or force remove$",
    ):
        await bench.engine.containers.remove("web")
    await bench.engine.containers.remove("web", force=True)
    with pytest.raises(ContainerNotFoundError, match=r"^No such container: web$"):
        bench.engine.containers.resolve("web")
    assert bench.actions()[2:] == ["kill", "die", "destroy"]
    await bench.core.background.quiesce()
    assert container_id not in bench.snapshots.active


async def test_a_second_removal_is_told_that_one_is_in_progress(bench: Any) -> None:
    container_id = await bench.run("web")
    bench.shim.ignores_signals = {9}
    removing = asyncio.create_task(bench.engine.containers.remove("web", force=True))
    await settle()
    with pytest.raises(RemovalInProgressError, match="removal of container web is already in"):
        await bench.engine.containers.remove("web", force=True)
    with pytest.raises(ConflictError):
        await bench.engine.containers.rename("web", "other")
    await bench.end(container_id, 137)
    await asyncio.wait_for(removing, PATIENCE_S)


async def test_a_removal_that_fails_tells_the_waiting_and_can_be_repeated(bench: Any) -> None:
    container_id = await bench.run("web")
    bench.shim.ignores_signals = {9}
    removed = bench.engine.lifecycle.wait("web", "removed")
    removing = asyncio.create_task(bench.engine.containers.remove("web", force=True))
    await bench.clock.advance(11)
    with pytest.raises(Exception, match="did not end within"):
        await removing
    assert "did not end within" in (await removed).error
    bench.shim.ignores_signals = set()
    await bench.engine.containers.remove(container_id, force=True)


async def test_restart_keeps_an_auto_remove_container(bench: Any) -> None:
    container_id = await bench.run(auto_remove=True)
    await bench.engine.lifecycle.restart(container_id, timeout=1)
    assert await bench.status(container_id) == "running"
    assert bench.actions()[2:] == ["kill", "die", "stop", "start", "restart"]


async def test_out_of_memory_is_noted_and_told(bench: Any) -> None:
    container_id = await bench.run()
    bench.shim.run_out_of_memory(container_id)
    await bench.end(container_id, 137, oom_killed=True)
    state = (await bench.engine.containers.inspect(container_id))["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    assert bench.actions()[2:] == ["oom", "die"]


async def test_an_exit_told_twice_counts_once(bench: Any) -> None:
    container_id = await bench.run()
    bench.shim.end(container_id, 1)
    (event,) = bench.shim.unacknowledged.values()
    await settle()
    await bench.engine.lifecycle.start(container_id)
    bench.shim.on_event(event)
    await settle()
    assert await bench.status(container_id) == "running"


async def test_two_starts_at_once_run_one(bench: Any) -> None:
    container_id = await bench.create()
    results = await asyncio.gather(
        *(bench.engine.lifecycle.start(container_id) for _ in range(5)), return_exceptions=True
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, AlreadyStartedError) for result in results) == 4
    assert [call[0] for call in bench.shim.calls].count("start") == 1
