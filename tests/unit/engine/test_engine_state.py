"""The state database: grouping, coalescing, failures."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from cais.engine import state as state_module
from cais.engine.records import ContainerRecord
from cais.engine.state import State
from cais.errors import ExhaustedError, InternalError
from cais.spec.container import ContainerConfig, HostConfig
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def record(number: int, name: str | None = None) -> ContainerRecord:
    return ContainerRecord(
        id=f"{number:064x}",
        name=name or f"/c{number}",
        created_at_ns=number,
        image_id="",
        image_ref="",
        parent="",
        path="true",
        args=[],
        config=ContainerConfig(env=["A=1"]),
        host_config=HostConfig(memory=5),
    )


def names(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    found = [row[0] for row in connection.execute("SELECT name FROM containers ORDER BY id")]
    connection.close()
    return found


async def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    state, loaded = State.open(tmp_path / "state.db")
    assert loaded.containers == []
    await state.put(record(1))
    await state.set_fact("color", "red")
    await state.close()
    state, loaded = State.open(tmp_path / "state.db")
    assert loaded.containers == [record(1)]
    assert loaded.facts == {"color": "red"}
    await state.close()
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600


async def test_a_change_is_durable_when_put_returns(tmp_path: Path) -> None:
    state, _ = State.open(tmp_path / "state.db")
    await state.put(record(1))
    assert names(tmp_path / "state.db") == ["/c1"]
    await state.delete(record(1).id)
    assert names(tmp_path / "state.db") == []
    await state.close()


async def test_what_comes_while_a_commit_runs_shares_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = []
    real = state_module._commit

    def counting(database: object, statements: list[object]) -> None:
        commits.append(len(statements))
        real(database, statements)  # type: ignore[arg-type]

    monkeypatch.setattr(state_module, "_commit", counting)
    state, _ = State.open(tmp_path / "state.db")
    await asyncio.gather(*(state.put(record(number)) for number in range(100)))
    assert sum(commits) == 100
    assert len(commits) <= 3
    assert len(names(tmp_path / "state.db")) == 100
    await state.close()


async def test_later_changes_of_one_record_replace_earlier_ones(tmp_path: Path) -> None:
    state, _ = State.open(tmp_path / "state.db")
    for _ in range(1000):
        state.put_later(record(1))
    state.put_later(record(1, "/renamed"))
    assert len(state._pending) == 1
    await state.put(record(2, "/c1"))
    assert names(tmp_path / "state.db") == ["/renamed", "/c1"]
    state.put_later(record(3))
    await state.delete(record(3).id)
    assert names(tmp_path / "state.db") == ["/renamed", "/c1"]
    await state.close()


async def test_names_that_are_exchanged_in_one_batch(tmp_path: Path) -> None:
    state, _ = State.open(tmp_path / "state.db")
    await state.put(record(1, "/x"))
    await state.put(record(2, "/y"))
    state.put_later(record(1, "/y"))
    await state.put(record(2, "/x"))
    assert names(tmp_path / "state.db") == ["/y", "/x"]
    await state.close()


async def test_a_record_is_written_as_it_was_when_put_was_called(tmp_path: Path) -> None:
    state, _ = State.open(tmp_path / "state.db")
    one = record(1)
    writing = asyncio.ensure_future(state.put(one))
    await asyncio.sleep(0)
    one.state.exit_code = 9
    await writing
    await state.close()
    again, loaded = State.open(tmp_path / "state.db")
    await again.close()
    assert loaded.containers[0].state.exit_code == 0


async def put_three(state: State) -> list[BaseException | None]:
    puts = (state.put(record(number, f"/{number}" * 50_000)) for number in range(3))
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*puts, return_exceptions=True)


async def test_a_full_disk_is_told_to_every_waiter_and_is_not_the_end(tmp_path: Path) -> None:
    state, _ = State.open(tmp_path / "state.db")
    state._database.rows("PRAGMA max_page_count=16")
    results = await put_three(state)
    assert all(isinstance(result, ExhaustedError) for result in results)
    assert "disk is full" in str(results[0])
    await state.put(record(9))
    assert names(tmp_path / "state.db") == ["/c9"]
    await state.close()


async def test_no_failure_of_a_commit_leaves_a_waiter_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("out of the ordinary")

    state, _ = State.open(tmp_path / "state.db")
    with monkeypatch.context() as broken:
        broken.setattr(state_module, "_commit", fail)
        results = await put_three(state)
    assert all(isinstance(result, InternalError) for result in results)
    assert "out of the ordinary" in str(results[0])
    await state.close()
