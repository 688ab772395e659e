"""A second copy of every row, in a file of its own, from which a lost database is rebuilt.

::

    <name>.copy.db               WAL, synchronous=NORMAL: nothing waits for the disk
      rows(source, key, content) of each table: the primary key and the row, as JSON arrays
      facts(name, value)         schema: the user_version; generation: of the last transaction

The mirror is written after each commit. So it is never ahead of its database, and one that is shows
that the database lost commits (its write-ahead log was deleted). It may be behind, after a power
cut or when the disk was full: then it is written anew.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from typing import TYPE_CHECKING

from cais.database.reader import SUFFIXES, damage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_SCHEMA = """
    PRAGMA journal_mode=WAL;
    PRAGMA synchronous=NORMAL;
    CREATE TABLE IF NOT EXISTS rows(
        source TEXT NOT NULL,
        key TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY(source, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID
"""
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_GENERATION = "generation"

Change = tuple[str, str, str | None]
"""A table, the key of a row, and its content; None: it is gone."""


class Mirror:
    """The open copy of one database."""

    def __init__(self, path: Path, wal_pages: int) -> None:
        """Open or create it; a damaged one is begun anew.

        Args:
            path: of the file.
            wal_pages: after how many its write-ahead log begins anew.

        """
        if path.exists() and damage_of(path) is not None:
            log.warning("%s is damaged: it is written anew", path)
            for suffix in SUFFIXES:
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        self._path = path
        self._is_behind = True
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            self._connection.executescript(_SCHEMA)
            self._connection.execute(f"PRAGMA wal_autocheckpoint={wal_pages}")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _fact(self, name: str) -> int:
        found = self._connection.execute(
            "SELECT value FROM facts WHERE name = ?", (name,)
        ).fetchone()
        return int(found[0]) if found else 0

    @property
    def schema(self) -> int:
        """The user_version of what is copied; 0: nothing is."""
        return self._fact("schema")

    @property
    def generation(self) -> int:
        """Counts the transactions it has seen the effect of."""
        return self._fact(_GENERATION)

    def follow(self, source: sqlite3.Connection) -> None:
        """Be told of every change of ``source`` from now on, and have what it has."""
        source.execute("CREATE TABLE IF NOT EXISTS generation(number INTEGER PRIMARY KEY)")
        source.execute("PRAGMA temp_store=MEMORY")
        source.execute("PRAGMA recursive_triggers=ON")  # or REPLACE deletes without a word
        source.execute("CREATE TEMP TABLE changed(source TEXT, key TEXT, PRIMARY KEY(source, key))")
        for table in _tables(source):
            _watch(source, table)
        schema: int = source.execute("PRAGMA user_version").fetchone()[0]
        self._is_behind = (self.schema, self.generation) != (schema, generation_of(source))
        if self._is_behind:
            self.write(source, [])

    def write(self, source: sqlite3.Connection, changes: Iterable[Change]) -> None:
        """Repeat what was committed. A failure is told, and made good with the next change."""
        try:
            with self._transaction():
                if self._is_behind:
                    self._connection.execute("DELETE FROM rows")
                    changes = _everything(source)
                self._put(changes)
                self._note("schema", source.execute("PRAGMA user_version").fetchone()[0])
                self._note(_GENERATION, generation_of(source))
        except sqlite3.Error as exc:
            if not self._is_behind:
                log.warning("%s cannot be written: %s", self._path, exc)
            self._is_behind = True
        else:
            self._is_behind = False

    def restore(self, target: sqlite3.Connection) -> None:
        """Put every row into ``target``, an empty database of the same schema."""
        tables = set(_tables(target))
        target.execute("BEGIN IMMEDIATE")
        target.execute("PRAGMA defer_foreign_keys=ON")
        for source, content in self._connection.execute("SELECT source, content FROM rows"):
            if source in tables:
                values = json.loads(content)
                marks = ", ".join("?" * len(values))
                target.execute(f'INSERT INTO "{source}" VALUES ({marks})', values)  # noqa: S608
        target.execute("COMMIT")

    def _put(self, changes: Iterable[Change]) -> None:
        for source, key, content in changes:
            if content is None:
                self._connection.execute(
                    "DELETE FROM rows WHERE source = ? AND key = ?", (source, key)
                )
            else:
                self._connection.execute(
                    "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (source, key, content)
                )

    def _note(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def generation_of(source: sqlite3.Connection) -> int:
    """Return how many transactions a database has seen; 0: it is new, or never had a mirror."""
    try:
        found = source.execute("SELECT max(number) FROM generation").fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # no such table
    return int(found or 0)


def take_changes(source: sqlite3.Connection) -> list[Change]:
    """Count a transaction that is about to be committed, and return what it changed."""
    changed = source.execute("SELECT source, key FROM temp.changed").fetchall()
    if not changed:
        return []
    number = generation_of(source) + 1
    source.execute("DELETE FROM generation")
    source.execute("INSERT INTO generation VALUES (?)", (number,))
    source.execute("DELETE FROM temp.changed")
    return [(table, key, _content(source, table, key)) for table, key in changed]


def _tables(source: sqlite3.Connection) -> list[str]:
    found = source.execute(_TABLES).fetchall()
    return [name for (name, *_) in found if name != _GENERATION]


def _keys(source: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of the primary key, in order; the number of the row if there is none."""
    columns = source.execute(f"PRAGMA main.table_info({table})").fetchall()
    named = sorted((column[5], column[1]) for column in columns if column[5])
    return [name for _, name in named] or ["rowid"]


def _watch(source: sqlite3.Connection, table: str) -> None:
    keys = _keys(source, table)
    for event, sides in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
        notes = "; ".join(_note(table, [f"{side}.{key}" for key in keys]) for side in sides)
        source.execute(
            f'CREATE TEMP TRIGGER "{table} {event}" AFTER {event} ON main."{table}" '
            f"BEGIN {notes}; END"
        )


def _note(table: str, key: Sequence[str]) -> str:
    """Return a statement that notes a row once.

    No OR IGNORE: the conflict clause of the statement that fires a trigger takes its place.
    """
    found = f"SELECT '{table}' AS source, json_array({', '.join(key)}) AS key"
    return f"INSERT INTO changed SELECT * FROM ({found} EXCEPT SELECT source, key FROM changed)"  # noqa: S608 - names of our own


def _everything(source: sqlite3.Connection) -> Iterator[Change]:
    for table in _tables(source):
        keys = ", ".join(_keys(source, table))
        for (key,) in source.execute(f'SELECT json_array({keys}) FROM "{table}"').fetchall():  # noqa: S608
            yield table, key, _content(source, table, key)


def _content(source: sqlite3.Connection, table: str, key: str) -> str | None:
    test = " AND ".join(f"{name} IS ?" for name in _keys(source, table))
    row = source.execute(f'SELECT * FROM main."{table}" WHERE {test}', json.loads(key)).fetchone()  # noqa: S608
    return None if row is None else json.dumps(list(row), separators=(",", ":"))
