"""Transactions are whole or nothing, whatever ends them; versions and damage are told."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from cais.database import Database
from cais.errors import ConflictError, DataLossError, ExhaustedError, InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA = """
    CREATE TABLE parent(id INTEGER PRIMARY KEY);
    CREATE TABLE child(
        parent INTEGER REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED, text TEXT);
"""
INSERT = "INSERT INTO child VALUES (?, ?)"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = Database(tmp_path / "some.db", [SCHEMA])
    yield one
    one.close()


def texts(database: Database) -> list[str]:
    return [row["text"] for row in database.rows("SELECT text FROM child")]


def test_a_commit_that_fails_leaves_nothing_and_no_transaction(database: Database) -> None:
    # SQLite keeps the transaction of a refused COMMIT open; the next BEGIN would fail.
    with (
        pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"),
        database.transaction() as connection,
    ):
        connection.execute(INSERT, (7, "orphan"))
    assert texts(database) == []
    with database.transaction() as connection:
        connection.execute(INSERT, (None, "later"))
    assert texts(database) == ["later"]


def test_an_exception_in_the_block_undoes_it(database: Database) -> None:
    with pytest.raises(sqlite3.ProgrammingError), database.transaction() as connection:
        connection.executemany(INSERT, [(None, "half"), ("wrong", "number", "of values")])
    assert texts(database) == []


def test_a_full_disk_is_exhausted_and_the_rest_is_internal(database: Database) -> None:
    database.rows("PRAGMA max_page_count=8")
    with pytest.raises(ExhaustedError, match=r"some\.db.*full"), database.transaction() as full:
        full.execute(INSERT, (None, "x" * 100_000))
    with pytest.raises(InternalError, match="no such table"), database.transaction() as wrong:
        wrong.execute("INSERT INTO nowhere VALUES (1)")
    assert texts(database) == []


def test_migrations_run_once_each_and_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    Database(path, [SCHEMA]).close()
    migrated = Database(path, [SCHEMA, "ALTER TABLE child ADD COLUMN more TEXT DEFAULT 'm'"])
    with migrated.transaction() as connection:
        connection.execute("INSERT INTO child(text) VALUES ('t')")
    assert migrated.rows("SELECT more FROM child")[0]["more"] == "m"
    migrated.close()
    with pytest.raises(ConflictError, match="schema 2, newer than this program's 1"):
        Database(path, [SCHEMA])


def test_what_is_no_database_is_data_loss_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(DataLossError, match=r"some\.db"):
        Database(path, [SCHEMA])
    assert path.read_bytes().startswith(b"not a database")


def test_a_database_is_private_and_survives_a_power_cut(database: Database, tmp_path: Path) -> None:
    assert (tmp_path / "some.db").stat().st_mode & 0o777 == 0o600
    full = 2
    assert database.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert database.rows("PRAGMA synchronous")[0][0] == full
