"""Looking into a database that somebody else may have open, without changing a byte of it."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from cais.errors import DataLossError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BUSY_TIMEOUT_S = 10.0
SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Of the files of one database."""


class Reader:
    """One connection, used by any thread, one at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        self._connection = connection
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file that exists, for reading only.

        Raises:
            DataLossError: there is none, or it cannot be read.

        """
        address = f"file:{quote(str(path))}?mode=ro"
        try:
            connection = sqlite3.connect(
                address,
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.DatabaseError as exc:
            raise DataLossError(f"database {path}: {exc}") from exc
        return cls(connection)

    def close(self) -> None:
        """Close it; the object is not used again."""
        with self._lock:
            self._connection.close()

    def rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return what a SELECT finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def damage_of(path: Path) -> str | None:
    """Say what is wrong with a database file; None: its structure is sound.

    Blocks: reads the whole file.
    """
    try:
        reader = Reader.open(path)
    except DataLossError as exc:
        return str(exc.__cause__)
    try:
        found: str = reader.rows("PRAGMA quick_check(1)")[0][0]
    except sqlite3.DatabaseError as exc:
        return str(exc)
    finally:
        reader.close()
    return None if found == "ok" else found.replace("\n", " ")
