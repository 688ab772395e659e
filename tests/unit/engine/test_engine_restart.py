"""Restart policies, their back-off, and what a stop means for them (F-39)."""

from __future__ import annotations

from typing import Any

import pytest

from cais.engine.restart import Backoff, should_restart
from cais.errors import ConflictError
from cais.spec.container import RestartPolicy, UpdateBody

ALWAYS = RestartPolicy("always")


def starts(bench: Any) -> int:
    return [call[0] for call in bench.shim.calls].count("start")


def test_backoff_doubles_to_a_minute_and_starts_over_after_a_steady_run() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay_s(0) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert backoff.next_delay_s(10) == 0.1


@pytest.mark.parametrize(
    ("name", "retries", "code", "count", "stopped", "wanted"),
    [
        ("no", 0, 1, 0, False, False),
        ("", 0, 1, 0, False, False),
        ("always", 0, 0, 9, True, True),
        ("unless-stopped", 0, 0, 0, False, True),
        ("unless-stopped", 0, 0, 0, True, False),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 0, 1, 99, False, True),
        ("on-failure", 2, 1, 1, False, True),
        ("on-failure", 2, 1, 2, False, False),
    ],
)
def test_policies(
    name: str, retries: int, code: int, count: int, stopped: bool, wanted: bool
) -> None:
    decision = should_restart(
        name, retries, exit_code=code, restart_count=count, is_manually_stopped=stopped
    )
    assert decision is wanted


async def test_an_ended_container_comes_back_after_the_pause(bench: Any) -> None:
    container_id = await bench.run(restart_policy=ALWAYS)
    waiting = bench.engine.lifecycle.wait(container_id, "next-exit")
    await bench.end(container_id, 1)
    assert await bench.status(container_id) == "restarting"
    await bench.clock.advance(0.09)
    assert starts(bench) == 1
    await bench.clock.advance(0.02)
    assert starts(bench) == 2
    document = await bench.engine.containers.inspect(container_id)
    assert (document["RestartCount"], document["State"]["Status"]) == (1, "running")
    assert not waiting.done()


async def test_on_failure_gives_up(bench: Any) -> None:
    container_id = await bench.run(restart_policy=RestartPolicy("on-failure", 2))
    for _ in range(3):
        await bench.end(container_id, 1)
        await bench.clock.advance(5)
    assert starts(bench) == 3
    assert await bench.status(container_id) == "exited"


async def test_stop_wins_over_a_pending_restart(bench: Any) -> None:
    container_id = await bench.run(restart_policy=ALWAYS)
    await bench.end(container_id, 0)
    assert await bench.status(container_id) == "restarting"
    await bench.engine.lifecycle.stop(container_id)
    assert await bench.status(container_id) == "exited"
    await bench.clock.advance(100)
    assert starts(bench) == 1


async def test_stop_wins_over_the_policy(bench: Any) -> None:
    container_id = await bench.run(restart_policy=ALWAYS)
    await bench.engine.lifecycle.stop(container_id)
    await bench.clock.advance(100)
    assert await bench.status(container_id) == "exited"
    await bench.engine.lifecycle.start(container_id)
    await bench.end(container_id, 0)
    assert await bench.status(container_id) == "restarting"


async def test_a_signal_that_is_not_the_stop_signal_leaves_the_policy(bench: Any) -> None:
    container_id = await bench.run(restart_policy=ALWAYS, stop_signal="SIGTERM")
    await bench.engine.lifecycle.kill(container_id, "USR1")
    await bench.clock.advance(1)
    assert await bench.status(container_id) == "running"
    assert starts(bench) == 2


async def test_remove_wins_over_a_pending_restart(bench: Any) -> None:
    container_id = await bench.run(restart_policy=ALWAYS)
    await bench.end(container_id, 0)
    await bench.engine.containers.remove(container_id, force=True)
    await bench.clock.advance(100)
    assert starts(bench) == 1
    assert len(bench.core.table) == 0


async def test_the_daemon_starts_what_always_and_unless_stopped_want(bench: Any) -> None:
    always = await bench.run("always", restart_policy=ALWAYS)
    unless = await bench.run("unless", restart_policy=RestartPolicy("unless-stopped"))
    plain = await bench.run("plain")
    for one in (always, unless, plain):
        await bench.engine.lifecycle.stop(one)
    await bench.reopen()
    await bench.clock.advance(0)
    assert await bench.status("always") == "running"
    assert await bench.status("unless") == "exited"
    assert await bench.status("plain") == "exited"


async def test_a_restart_pending_when_the_daemon_ended_happens_later(bench: Any) -> None:
    container_id = await bench.run(restart_policy=RestartPolicy("on-failure"))
    await bench.end(container_id, 1)
    await bench.reopen()
    await bench.clock.advance(0)
    assert await bench.status(container_id) == "running"
    assert (await bench.engine.containers.inspect(container_id))["RestartCount"] == 1


async def test_the_policy_can_be_updated_but_not_beside_auto_remove(bench: Any) -> None:
    container_id = await bench.run()
    await bench.engine.containers.update(container_id, UpdateBody(restart_policy=ALWAYS))
    await bench.end(container_id, 0)
    assert await bench.status(container_id) == "restarting"
    other = await bench.run(auto_remove=True)
    with pytest.raises(ConflictError, match="because AutoRemove is enabled"):
        await bench.engine.containers.update(other, UpdateBody(restart_policy=ALWAYS))
