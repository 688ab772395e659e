"""What a snapshotter knows of its snapshots: a row for each, in ``snapshots.db``.

::

    snapshots(number, key UNIQUE, kind, parent -> number, created_ns, size_bytes, inodes)

``number`` names a snapshot's directories; it is never given again. A schema change appends to
``_MIGRATIONS``.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.database import Database
from cais.errors import ExhaustedError
from cais.snapshots.snapshotter import (
    Kind,
    Snapshot,
    SnapshotExistsError,
    SnapshotInUseError,
    SnapshotKey,
    SnapshotNotFoundError,
    SnapshotStateError,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_LAYERS = 500
"""What overlayfs stacks below an upper directory."""

_MIGRATIONS = (
    """
    CREATE TABLE snapshots(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        parent INTEGER REFERENCES snapshots(number),
        created_ns INTEGER NOT NULL,
        size_bytes INTEGER,
        inodes INTEGER);
    CREATE INDEX snapshots_parent ON snapshots(parent)
    """,
    "CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
_LINEAGE = """
    WITH RECURSIVE lineage(number, parent, depth) AS (
        SELECT number, parent, 0 FROM snapshots WHERE number = ?
        UNION ALL
        SELECT s.number, s.parent, depth + 1 FROM snapshots s JOIN lineage l ON s.number = l.parent)
    SELECT number FROM lineage ORDER BY depth
"""
_ALL = """
    SELECT s.*, p.key AS parent_key FROM snapshots s LEFT JOIN snapshots p ON s.parent = p.number
"""
_DEPTHS = """
    WITH RECURSIVE depths(number, depth) AS (
        SELECT number, 0 FROM snapshots WHERE parent IS NULL
        UNION ALL
        SELECT s.number, depth + 1 FROM snapshots s JOIN depths d ON s.parent = d.number)
"""
_BY_DEPTH = "JOIN depths d ON d.number = s.number ORDER BY d.depth, s.number"
_DRIVER = "driver"
_STAND_INS = "stand-ins"


@dataclass(frozen=True, slots=True)
class Row:
    """One snapshot."""

    number: int
    key: str
    kind: Kind
    parent: int | None
    """Number of the parent."""

    snapshot: Snapshot
    usage: Usage | None
    """Of a committed one, once it was counted."""

    def expect_active(self, why: str) -> None:
        """SnapshotStateError unless it is active."""
        if self.kind is not Kind.ACTIVE:
            raise SnapshotStateError(f"snapshot {self.key} is {self.kind.value}: {why}")


class Rows:
    """The open database; its methods may be called from any thread and are durable."""

    def __init__(self, path: Path) -> None:
        """Open or create it; raises as ``Database``."""
        self._database = Database(path, _MIGRATIONS, mirrored=True)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    @property
    def driver(self) -> str:
        """Whose snapshots these are; "" for a new store, or one from before there was a choice."""
        return self._fact(_DRIVER)

    def set_driver(self, name: str) -> None:
        """Remember whose snapshots these are."""
        self._set_fact(_DRIVER, name)

    @property
    def have_stand_ins(self) -> bool:
        """Whether names may be hidden in a way that no kernel knows, see ``linux.whiteouts``."""
        return bool(self._fact(_STAND_INS))

    def note_stand_ins(self, *, are_made: bool) -> None:
        """Remember whether names are hidden so from now on; snapshots that are there stay so."""
        if are_made or not any(self.walk()):
            self._set_fact(_STAND_INS, "made" if are_made else "")

    def _fact(self, name: str) -> str:
        rows = self._database.rows("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0]["value"] if rows else ""

    def _set_fact(self, name: str, value: str) -> None:
        if self._fact(name) == value:
            return  # nothing is written: a store can be opened on a full disk
        with self._database.transaction() as connection:
            connection.execute("REPLACE INTO facts(name, value) VALUES (?, ?)", (name, value))

    def create(self, key: str, parent: str | None, kind: Kind) -> None:
        """Add a row; raises as ``Snapshotter.prepare``."""
        with self._database.transaction() as connection:
            parent_number = None if parent is None else self._committed(parent)
            try:
                number = connection.execute(
                    "INSERT INTO snapshots(key, kind, parent, created_ns) VALUES (?, ?, ?, ?)",
                    (key, kind.value, parent_number, time.time_ns()),
                ).lastrowid
            except sqlite3.IntegrityError as exc:
                raise SnapshotExistsError(key) from exc
            assert number is not None
            depth = len(self.lineage(number)) - 1
            if depth > MAX_LAYERS:
                raise ExhaustedError(f"max depth exceeded: {key} has {depth} layers")

    def get(self, key: str) -> Row:
        """Return one. SnapshotNotFoundError."""
        rows = self._database.rows(f"{_ALL} WHERE s.key = ?", (key,))
        if not rows:
            raise SnapshotNotFoundError(key)
        return _row(rows[0])

    def walk(self) -> Iterator[Row]:
        """Yield all, parents first, then in the order of their creation."""
        yield from map(_row, self._database.rows(f"{_DEPTHS} {_ALL} {_BY_DEPTH}"))

    def lineage(self, number: int) -> list[int]:
        """Return the numbers of a snapshot and of all below it, the uppermost first.

        Raises:
            SnapshotNotFoundError: it was removed meanwhile.

        """
        numbers = [found["number"] for found in self._database.rows(_LINEAGE, (number,))]
        if not numbers:
            raise SnapshotNotFoundError(f"number {number}")
        return numbers

    def commit(self, row: Row, name: str, parent: str | None = None) -> None:
        """Turn an active one into the committed ``name``; raises as ``Snapshotter.commit``."""
        with self._database.transaction() as connection:
            below = row.parent if parent is None else self._committed(parent)
            if row.parent not in (None, below):
                raise SnapshotStateError(f"snapshot {row.key} has a parent, which is not {parent}")
            try:
                changed = connection.execute(
                    "UPDATE snapshots SET key = ?, kind = ?, parent = ? "
                    "WHERE number = ? AND kind = ?",
                    (name, Kind.COMMITTED.value, below, row.number, Kind.ACTIVE.value),
                )
            except sqlite3.IntegrityError as exc:
                raise SnapshotExistsError(name) from exc
            if changed.rowcount != 1:
                raise SnapshotNotFoundError(row.key)

    def remove(self, key: str) -> Row:
        """Delete a row and return what it was; raises as ``Snapshotter.remove``."""
        with self._database.transaction() as connection:
            row = self.get(key)
            try:
                connection.execute("DELETE FROM snapshots WHERE number = ?", (row.number,))
            except sqlite3.IntegrityError as exc:
                raise SnapshotInUseError(key) from exc
        return row

    def keep_usage(self, row: Row, usage: Usage) -> None:
        """Remember what a committed one takes."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE snapshots SET size_bytes = ?, inodes = ? WHERE number = ?",
                (usage.size_bytes, usage.inodes, row.number),
            )

    def _committed(self, name: str) -> int:
        row = self.get(name)
        if row.kind is not Kind.COMMITTED:
            raise SnapshotStateError(f"snapshot {name} is {row.kind.value}: it cannot be a parent")
        return row.number


def _row(row: sqlite3.Row) -> Row:
    kind = Kind(row["kind"])
    snapshot = Snapshot(SnapshotKey(row["key"]), kind, row["parent_key"], row["created_ns"])
    counted = row["size_bytes"] is not None
    usage = Usage(row["size_bytes"], row["inodes"]) if counted else None
    return Row(row["number"], row["key"], kind, row["parent"], snapshot, usage)
