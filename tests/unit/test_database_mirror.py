"""A database with a mirror is rebuilt from it, whatever happened to its own files."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from cais.database import Database
from cais.database.database import mirror_path
from cais.database.reader import damage_of
from cais.errors import ConflictError, DataLossError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEMA = (
    """
    CREATE TABLE owners(id TEXT PRIMARY KEY, age INTEGER) WITHOUT ROWID;
    CREATE TABLE things(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        owner TEXT REFERENCES owners(id) ON DELETE CASCADE,
        below INTEGER REFERENCES things(number));
    CREATE TABLE notes(text TEXT);
    """,
)
LATER = (*SCHEMA, "ALTER TABLE owners ADD COLUMN town TEXT DEFAULT 'Porto'")


def open_one(path: Path, schema: tuple[str, ...] = SCHEMA) -> Database:
    return Database(path / "some.db", schema, mirrored=True)


def fill(database: Database) -> None:
    with database.transaction() as connection:
        connection.executemany("INSERT INTO owners VALUES (?, ?)", [("ann", 3), ("bob", None)])
        connection.execute("INSERT INTO things(name, owner) VALUES ('boat', 'ann')")
        connection.execute("INSERT INTO things(name, owner, below) VALUES ('oar', 'ann', 1)")
        connection.execute("INSERT INTO things(name, owner) VALUES ('net', 'bob')")
        connection.execute("INSERT INTO notes VALUES ('first')")
    with database.transaction() as connection:
        connection.execute("UPDATE owners SET age = 4 WHERE id = 'ann'")
        connection.execute("DELETE FROM owners WHERE id = 'bob'")  # and what is his
        connection.execute("REPLACE INTO things(name, owner) VALUES ('boat2', 'ann')")
        connection.execute("UPDATE things SET name = 'paddle' WHERE name = 'oar'")


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: sorted(map(tuple, database.rows(f"SELECT * FROM {table}")))
        for table in ("owners", "things", "notes")
    }


def stored_in(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What the database of a directory has when it is opened again."""
    with contextlib.closing(open_one(path)) as database:
        return contents(database)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5000)


def scribble(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database" * 100)


def zero_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))


@pytest.mark.parametrize("damage", [truncate, cut, scribble, zero_a_page, os.unlink])
def test_a_damaged_database_is_rebuilt_and_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    first = open_one(tmp_path)
    fill(first)
    before = contents(first)
    assert before["things"] == [
        (1, "boat", "ann", None),
        (2, "paddle", "ann", 1),
        (4, "boat2", "ann", None),
    ]
    first.close()
    damage(tmp_path / "some.db")
    with caplog.at_level(logging.ERROR):
        again = open_one(tmp_path)
    assert "it is rebuilt from its copy" in caplog.text
    assert contents(again) == before
    with again.transaction() as connection:
        connection.execute("INSERT INTO things(name) VALUES ('after')")
    assert again.rows("SELECT number FROM things WHERE name = 'after'")[0][0] == 5
    again.close()
    aside = [each.name for each in tmp_path.iterdir() if "damaged" in each.name]
    assert bool(aside) is (damage is not os.unlink)
    assert stored_in(tmp_path)["notes"] == [("first",)]


def test_commits_that_a_deleted_log_took_along_are_put_back(tmp_path: Path) -> None:
    first = open_one(tmp_path)
    fill(first)
    before = contents(first)
    # What a killed process leaves; close() would bring the log into the file.
    for name in ("some.db", "some.copy.db", "some.copy.db-wal"):
        (tmp_path / "killed").mkdir(exist_ok=True)
        (tmp_path / "killed" / name).write_bytes((tmp_path / name).read_bytes())
    first.close()
    assert stored_in(tmp_path / "killed") == before


def test_a_mirror_that_is_behind_or_gone_is_written_anew(tmp_path: Path) -> None:
    first = open_one(tmp_path)
    fill(first)
    first.close()
    copy = mirror_path(tmp_path / "some.db")
    old = copy.read_bytes()
    second = open_one(tmp_path)
    with second.transaction() as connection:
        connection.execute("DELETE FROM things")
    before = contents(second)
    second.close()
    for damage in (lambda: copy.write_bytes(old), copy.unlink, lambda: copy.write_bytes(b"x" * 99)):
        damage()
        open_one(tmp_path).close()
        truncate(tmp_path / "some.db")
        assert stored_in(tmp_path) == before


def test_a_mirror_that_cannot_be_written_costs_nothing_and_catches_up(tmp_path: Path) -> None:
    database = open_one(tmp_path)
    other = sqlite3.connect(mirror_path(tmp_path / "some.db"), isolation_level=None)
    database._mirror._connection.execute("PRAGMA busy_timeout=0")  # type: ignore[union-attr]
    other.execute("BEGIN IMMEDIATE")
    fill(database)
    before = contents(database)
    other.execute("ROLLBACK")
    other.close()
    with database.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES ('later')")
    database.close()
    truncate(tmp_path / "some.db")
    assert stored_in(tmp_path) == {**before, "notes": [("first",), ("later",)]}


def test_what_was_undone_is_in_neither(tmp_path: Path) -> None:
    database = open_one(tmp_path)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.executemany("INSERT INTO things(name) VALUES (?)", [("undone",), (None,)])
    with database.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES ('done')")
    database.close()
    truncate(tmp_path / "some.db")
    found = stored_in(tmp_path)
    assert (found["notes"], found["things"]) == ([("done",)], [])


def test_a_row_that_one_transaction_changes_twice_by_upserts(tmp_path: Path) -> None:
    database = open_one(tmp_path)
    upsert = (
        "INSERT INTO owners(id, age) VALUES ('ann', ?) ON CONFLICT DO UPDATE SET age = excluded.age"
    )
    with database.transaction() as connection:
        for age in range(3):
            connection.execute(upsert, (age,))
    before = contents(database)
    database.close()
    truncate(tmp_path / "some.db")
    assert stored_in(tmp_path) == before


def test_a_mirror_of_an_older_schema_and_of_a_newer_one(tmp_path: Path) -> None:
    first = open_one(tmp_path)
    fill(first)
    first.close()
    truncate(tmp_path / "some.db")
    later = open_one(tmp_path, LATER)
    assert later.rows("SELECT id, age, town FROM owners")[0][:] == ("ann", 4, "Porto")
    later.close()
    truncate(tmp_path / "some.db")
    with pytest.raises(ConflictError, match="schema 2, newer than this program's 1"):
        open_one(tmp_path)
    assert (tmp_path / "some.db").stat().st_size == 0  # nothing was touched


def test_both_damaged_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    first = open_one(tmp_path)
    fill(first)
    first.close()
    scribble(tmp_path / "some.db")
    scribble(mirror_path(tmp_path / "some.db"))
    with pytest.raises(DataLossError, match=r"some\.db"):
        open_one(tmp_path)
    for path in (tmp_path / "some.db", mirror_path(tmp_path / "some.db")):
        assert path.read_bytes().startswith(b"no database")
    (tmp_path / "some.db").unlink()
    with pytest.raises(DataLossError, match=r"some\.db is gone, and its copy some\.copy\.db is"):
        open_one(tmp_path)


def test_a_creation_that_the_power_ended_is_undone(tmp_path: Path) -> None:
    """The first transaction of a file is in a journal, which reading alone cannot roll back."""
    path = tmp_path / "some.db"
    for each in (path, mirror_path(path)):
        creator = sqlite3.connect(tmp_path / "other", isolation_level=None)
        creator.execute("PRAGMA cache_size=1")
        creator.execute("PRAGMA cache_spill=1")
        creator.execute("BEGIN EXCLUSIVE")
        creator.execute("CREATE TABLE t(x)")
        creator.execute("INSERT INTO t SELECT randomblob(100000)")  # more than the cache holds
        for suffix in ("", "-journal"):  # as the disk is in the middle of it
            content = (tmp_path / f"other{suffix}").read_bytes()
            each.with_name(each.name + suffix).write_bytes(content)
        creator.execute("ROLLBACK")
        creator.close()
    assert "readonly" in str(damage_of(path))
    database = open_one(tmp_path)
    fill(database)
    before = contents(database)
    database.close()
    truncate(path)
    assert stored_in(tmp_path) == before
