"""SQLite files whose commits survive a power cut.

WAL with synchronous=FULL was measured to keep every acknowledged commit through a cut; NORMAL
loses whole tables (``SECURITY.md`` F-6). The schema's version is ``user_version``: a change
appends a migration and never edits an old one. What a power cut spares, a bad sector or an
``rm`` takes: a database that others cannot be made from has a ``mirror``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cais.database.mirror import Mirror, generation_of, take_changes
from cais.database.reader import SUFFIXES, Reader, damage_of
from cais.errors import ConflictError, DataLossError, ExhaustedError, InternalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 10.0
_WAL_PAGES = 128
"""Half a megabyte: the WAL never shrinks, and counts as disk use of whoever wrote last."""

_WAL_FRAME_BYTES = 4096 + 256
"""More than a page and its header."""


class Database(Reader):
    """One connection, used by any thread, one at a time."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        *,
        durable: bool = True,
        mirrored: bool = False,
    ) -> None:
        """Open or create the file (0600) and bring its schema up to date.

        Args:
            path: of the file.
            migrations: from each version of the schema to the next.
            durable: a commit waits for the disk; else a power cut may lose the last ones.
            mirrored: it has a second copy, from which it is rebuilt if it is damaged or gone; the
                damaged file is kept as ``<name>.damaged-<time>``.

        Raises:
            ConflictError: a newer version wrote it.
            DataLossError: it is no intact database, and nor is a copy.

        """
        self._path = path
        if mirrored:
            for each in (path, mirror_path(path)):
                _roll_back_creation(each)
            _check_pair(path)
        self._mirror = Mirror(mirror_path(path), _WAL_PAGES) if mirrored else None
        self._synchronous = "FULL" if durable else "NORMAL"
        try:
            self._open(migrations)
        except BaseException:
            if self._mirror:
                self._mirror.close()
            raise

    def close(self) -> None:
        """Checkpoint and close; the object is not used again."""
        with self._lock:
            self._connection.close()
            if self._mirror:
                self._mirror.close()

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
                changes = take_changes(self._connection) if self._mirror else []
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as exc:
                self._roll_back()
                full = exc.sqlite_errorcode == sqlite3.SQLITE_FULL
                if full:
                    raise ExhaustedError(
                        f"write {self._path}: no space left on device ({exc})"
                    ) from exc
                raise InternalError(f"write {self._path}: {exc}") from exc
            except BaseException:
                self._roll_back()
                raise
            if self._mirror and changes:
                self._mirror.write(self._connection, changes)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _open(self, migrations: Sequence[str]) -> None:
        if self._mirror and self._mirror.generation and (reason := self._loss(self._mirror)):
            self._rebuild(migrations, self._mirror, reason)
        self._connect(migrations)
        if self._mirror:
            with _closed_on_failure(self._connection):
                self._mirror.follow(self._connection)

    def _loss(self, mirror: Mirror) -> str | None:
        """Say why the mirror has to make this database good; None: it need not."""
        if loss := loss_of(self._path):
            return loss
        reader = Reader.open(self._path)
        try:
            generation = generation_of(reader._connection)  # noqa: SLF001 - of this class
        finally:
            reader.close()
        return "has lost its last changes" if generation < mirror.generation else None

    def _rebuild(self, migrations: Sequence[str], mirror: Mirror, reason: str) -> None:
        if mirror.schema > len(migrations):
            raise self._newer(mirror.schema, migrations)
        aside = set_aside(self._path)
        self._connect(migrations[: mirror.schema])
        with contextlib.closing(self._connection):
            mirror.restore(self._connection)
            self._connection.execute("CREATE TABLE generation(number INTEGER PRIMARY KEY)")
            self._connection.execute("INSERT INTO generation VALUES (?)", (mirror.generation,))
        log.error("database %s %s: it is rebuilt from its copy; see %s", self._path, reason, aside)

    def _connect(self, migrations: Sequence[str]) -> None:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        with _closed_on_failure(connection):
            try:
                self._prepare(connection, migrations)
            except sqlite3.DatabaseError as exc:
                raise DataLossError(f"database {self._path}: {exc}") from exc
        super().__init__(connection)
        self._reserve_log()

    def _reserve_log(self) -> None:
        """Give the write-ahead log its room, so that rows can be deleted on a full disk.

        SQLite takes the zeros for what they are, the end of the log.
        """
        path = self._path.with_name(f"{self._path.name}-wal")
        with contextlib.suppress(OSError):  # there is none before the first change, or no room
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.posix_fallocate(fd, 0, _WAL_PAGES * _WAL_FRAME_BYTES)
            finally:
                os.close(fd)

    def _prepare(self, connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise self._newer(version, migrations)
        for number, script in enumerate(migrations[version:], start=version + 1):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version={number}; COMMIT")

    def _newer(self, version: int, migrations: Sequence[str]) -> ConflictError:
        return ConflictError(
            f"database {self._path} has schema {version}, newer than this program's "
            f"{len(migrations)}"
        )


@contextmanager
def _closed_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def has_database(path: Path) -> bool:
    """Say whether there is anything of a mirrored database, sound or not."""
    return not (_is_empty(path) and _is_empty(mirror_path(path)))


def _roll_back_creation(path: Path) -> None:
    """Undo the first transaction of a file, if the power went in the middle of it.

    It is the one before there is a write-ahead log. Reading alone does not undo it: it fails.
    """
    if not path.with_name(f"{path.name}-journal").exists():
        return
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.DatabaseError as exc:
        log.warning("%s was not created in full, and cannot be undone: %s", path, exc)
    finally:
        connection.close()


def _check_pair(path: Path) -> None:
    """Refuse what neither file can make good, before anything is changed. DataLossError."""
    copy = mirror_path(path)
    if not _is_empty(copy) and (damage := damage_of(copy)) and (loss := loss_of(path)):
        raise DataLossError(
            f"database {path} {loss}, and its copy {copy.name} is damaged ({damage}): nothing was "
            "changed; see 'cais system check'"
        )


def loss_of(path: Path) -> str | None:
    """Say what is wrong with a file that should be a database; None: it is sound."""
    if _is_empty(path):
        return "is gone"
    damage = damage_of(path)
    return f"is damaged ({damage})" if damage else None


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def mirror_path(path: Path) -> Path:
    """Return where the copy of a database is."""
    return path.with_suffix(".copy.db")


def set_aside(path: Path) -> Path:
    """Rename the files of a damaged database; return the new name of the first."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
