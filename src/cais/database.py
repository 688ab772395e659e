"""SQLite files whose commits survive a power cut.

WAL with synchronous=FULL was measured to keep every acknowledged commit through a cut; NORMAL
loses whole tables (``SECURITY.md`` F-6). The schema's version is ``user_version``: a change
appends a migration and never edits an old one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cais.errors import ConflictError, DataLossError, ExhaustedError, InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_BUSY_TIMEOUT_S = 10.0
_WAL_PAGES = 128
"""Half a megabyte: the WAL never shrinks, and counts as disk use of whoever wrote last."""


class Database:
    """One connection, used by any thread, one at a time."""

    def __init__(self, path: Path, migrations: Sequence[str], *, durable: bool = True) -> None:
        """Open or create the file (0600) and bring its schema up to date.

        Args:
            path: of the file.
            migrations: from each version of the schema to the next.
            durable: a commit waits for the disk; else a power cut may lose the last ones.

        Raises:
            ConflictError: a newer version wrote it.
            DataLossError: it is no intact database.

        """
        self._path = path
        self._lock = threading.RLock()
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(migrations, "FULL" if durable else "NORMAL")
        except sqlite3.DatabaseError as exc:
            self._connection.close()
            raise DataLossError(f"database {path}: {exc}") from exc
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Checkpoint and close; the object is not used again."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one change: durable when the block ended, or nothing of it.

        Raises:
            ExhaustedError: the disk is full.
            InternalError: the database cannot be written.

        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as exc:
                self._roll_back()
                full = exc.sqlite_errorcode == sqlite3.SQLITE_FULL
                kind = ExhaustedError if full else InternalError
                raise kind(f"write {self._path}: {exc}") from exc
            except BaseException:
                self._roll_back()
                raise

    def rows(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return what a SELECT finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _prepare(self, migrations: Sequence[str], synchronous: str) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise ConflictError(
                f"database {self._path} has schema {version}, newer than this program's "
                f"{len(migrations)}"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version={number}; COMMIT")
