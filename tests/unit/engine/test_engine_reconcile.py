# ruff: noqa: ASYNC240 - small files, and nothing else in the loop
"""After a crash: records, shim and kernel become one again (F-1, F-16, F-33, F-35)."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cais.engine.engine import _locked
from cais.engine.state import State
from cais.errors import ConflictError, UnavailableError
from cais.spec.container import RestartPolicy

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_runs_goes_on_and_its_exit_arrives(bench: Any) -> None:
    container_id = await bench.run("web")
    pid = (await bench.engine.containers.inspect("web"))["State"]["Pid"]
    await bench.reopen()
    state = (await bench.engine.containers.inspect("web"))["State"]
    assert (state["Status"], state["Pid"]) == ("running", pid)
    assert container_id in bench.network.attached
    await bench.end(container_id, 5)
    assert (await bench.engine.containers.inspect("web"))["State"]["ExitCode"] == 5


@pytest.mark.parametrize(("for_commit", "status"), [(False, "paused"), (True, "running")])
async def test_only_what_a_commit_paused_goes_on(bench: Any, for_commit: bool, status: str) -> None:
    container_id = await bench.run("web")
    await bench.engine.lifecycle.pause("web", for_commit=for_commit)
    await bench.reopen()
    assert await bench.status(container_id) == status
    await bench.reopen()
    assert await bench.status(container_id) == status


async def test_a_commit_killed_right_after_the_freeze_is_thawed(bench: Any) -> None:
    container_id = await bench.run("web")
    record = bench.core.table.resolve("web").record
    record.state.paused_for_commit = True
    await bench.core.state.put(record)
    await bench.shim.pause(container_id)
    await bench.reopen()
    assert await bench.status(container_id) == "running"


async def test_an_exit_nobody_saw_is_recorded_and_acknowledged(bench: Any) -> None:
    container_id = await bench.run("web")
    await bench.close()
    bench.shim.on_event = lambda _event: None
    bench.shim.end(container_id, 42)
    await bench.open()
    state = (await bench.engine.containers.inspect("web"))["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 42)
    assert bench.shim.unacknowledged == {}
    assert bench.network.attached == {}


async def test_auto_remove_happens_even_if_the_end_came_while_nobody_was_there(bench: Any) -> None:
    container_id = await bench.run("gone", auto_remove=True)
    await bench.close()
    bench.shim.on_event = lambda _event: None
    bench.shim.end(container_id, 0)
    await bench.open()
    assert len(bench.core.table) == 0
    await bench.core.background.quiesce()
    assert bench.snapshots.active == {}
    assert list(bench.core.paths.containers.iterdir()) == []


async def test_a_start_whose_record_was_lost_is_seen_in_the_shim(bench: Any) -> None:
    container_id = await bench.create("web")
    await bench.close()
    await bench.shim.start(container_id, tty=False)
    await bench.open()
    assert await bench.status("web") == "running"


async def test_a_start_that_nobody_waits_for_any_more_is_given_up(bench: Any) -> None:
    container_id = await bench.create("web")
    await bench.shim.start(container_id, tty=False)
    hello = await bench.shim.open()
    starting = replace(hello.containers[0], pid=0, start_ticks=0, state="starting")
    await bench.shim.on_replaced(replace(hello, containers=(starting,)))
    assert await bench.status("web") == "created"
    assert bench.shim.calls[-1] == ("kill", container_id, "", "9")


async def test_after_a_reboot_nothing_runs_and_no_pid_is_touched(bench: Any) -> None:
    container_id = await bench.run("web")
    await bench.run("gone", auto_remove=True)
    await bench.close()
    bench.shim.running.clear()
    bench.shim.adoptable = {container_id}
    bench.shim.calls.clear()
    bench.boot_id = "boot-2"
    await bench.open()
    state = (await bench.engine.containers.inspect("web"))["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 255, 0)
    assert state["Error"]
    assert [one.record.name for one in bench.core.table] == ["/web"]
    assert bench.shim.calls == []


async def test_a_container_that_outlived_its_shim_is_adopted(bench: Any) -> None:
    container_id = await bench.run("web")
    other = await bench.run("other")
    await bench.close()
    bench.shim.running.clear()
    bench.shim.adoptable = {container_id}
    await bench.open()
    assert await bench.status("web") == "running"
    assert await bench.status(other) == "exited"


async def test_a_paused_container_is_adopted_as_paused(bench: Any) -> None:
    container_id = await bench.run("web")
    await bench.engine.lifecycle.pause("web")
    await bench.close()
    bench.shim.running.clear()
    bench.shim.adoptable = {container_id}
    await bench.open()
    assert await bench.status("web") == "paused"
    await bench.engine.lifecycle.unpause("web")
    assert await bench.status("web") == "running"


async def test_a_lost_shim_is_replaced_and_its_containers_adopted(bench: Any) -> None:
    container_id = await bench.run("web")
    ended = await bench.run("ended")
    bench.shim.running.clear()
    bench.shim.adoptable = {container_id}
    await bench.shim.on_replaced(await bench.shim.open())
    assert await bench.status("web") == "running"
    state = (await bench.engine.containers.inspect(ended))["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    await bench.end(container_id, None)
    assert (await bench.engine.containers.inspect("web"))["State"]["ExitCode"] == 255


async def test_what_was_started_under_the_new_shim_already_stays_as_it_is(bench: Any) -> None:
    hello = await bench.shim.open()
    await bench.run("web")
    ended = await bench.run("ended")
    bench.shim.running.pop(ended)
    await bench.shim.on_replaced(hello)
    assert [await bench.status(one) for one in ("web", ended)] == ["running", "exited"]
    assert list(bench.network.attached) == [(await bench.engine.containers.inspect("web"))["Id"]]


async def test_a_restart_outlives_the_replacement_of_the_shim(bench: Any) -> None:
    container_id = await bench.run("web", restart_policy=RestartPolicy("always"))
    waiting = bench.engine.lifecycle.wait("web")
    await bench.end(container_id, 1)
    await bench.shim.on_replaced(await bench.shim.open())
    assert await bench.status("web") == "restarting"
    bench.shim.refuse = UnavailableError("the shim is being restarted, try again")
    await bench.clock.advance(0.1)
    assert await bench.status("web") == "restarting"
    await bench.clock.advance(0.2)
    assert await bench.status("web") == "running"
    assert not waiting.done()
    waiting.cancel()


async def test_orphans_are_removed_and_strangers_ended(bench: Any) -> None:
    container_id = await bench.create("web")
    stranger = "d" * 64
    bench.snapshots.active["e" * 64] = None
    (bench.core.paths.containers / ("e" * 64)).mkdir()
    (bench.core.paths.bundles / ("f" * 64)).mkdir()
    await bench.close()
    await bench.shim.start(stranger, tty=False)
    await bench.open()
    assert set(bench.snapshots.active) == {container_id}
    assert list(bench.core.paths.containers.iterdir()) == []
    assert [record.id for record in bench.core.copies.load()] == [container_id]
    assert list(bench.core.paths.bundles.iterdir()) == []
    assert ("kill", stranger, "", "9") in bench.shim.calls


async def test_a_creation_cut_short_is_forgotten(bench: Any) -> None:
    container_id = await bench.create("half")
    await bench.create("whole")
    await bench.close()
    del bench.snapshots.active[container_id]
    await bench.open()
    assert [one.record.name for one in bench.core.table] == ["/whole"]
    await bench.create("half")


async def test_a_removal_cut_short_is_finished(bench: Any) -> None:
    container_id = await bench.create("web")
    record = bench.engine.containers.resolve("web").record
    record.state.removing = True
    await bench.core.state.put(record)
    await bench.reopen()
    assert bench.core.table.find(container_id) is None


async def test_an_unreadable_row_is_quarantined_and_rebuilt_from_its_copy(bench: Any) -> None:
    broken = await bench.create("broken")
    lost = await bench.create("lost")
    await bench.create("fine")
    bench.core.copies.delete(lost)
    await bench.close()
    database = bench.core.paths.database
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE containers SET document = ? WHERE id IN (?, ?)", (b"{", broken, lost)
        )
    connection.close()
    await bench.open()
    assert {one.record.name for one in bench.core.table} == {"/broken", "/fine"}
    assert lost in bench.snapshots.active, "data of what cannot be read must stay"
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT id, reason FROM quarantine").fetchall()
    connection.close()
    assert {row[0] for row in rows} == {broken, lost}


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000])
async def test_a_database_that_is_none_is_set_aside_and_rebuilt(bench: Any, damage: bytes) -> None:
    container_id = await bench.create("web")
    bench.snapshots.active["e" * 64] = None
    await bench.close()
    database: Path = bench.core.paths.database
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.write_bytes(damage)
    await bench.open()
    assert bench.engine.containers.resolve("web").id == container_id
    assert "e" * 64 in bench.snapshots.active
    assert [path.read_bytes() for path in database.parent.glob("state.db.damaged-*")] == [damage]
    await bench.reopen()
    assert await bench.status("web") == "created"


async def test_a_newer_database_is_refused_untouched(bench: Any) -> None:
    await bench.create("web")
    await bench.close()
    with sqlite3.connect(bench.core.paths.database) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConflictError, match="schema 99"):
        State.open(bench.core.paths.database)
    with sqlite3.connect(bench.core.paths.database) as connection:
        connection.execute("PRAGMA user_version=1")
    connection.close()
    await bench.open()
    assert await bench.status("web") == "created"


def test_one_daemon_a_data_root(tmp_path: Path) -> None:
    with (
        _locked(tmp_path / "caisd.lock"),
        pytest.raises(ConflictError, match=rf"in use by another caisd \(pid {os.getpid()}\)"),
        _locked(tmp_path / "caisd.lock"),
    ):
        raise AssertionError
    with _locked(tmp_path / "caisd.lock"):
        pass
