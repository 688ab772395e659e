"""The state database: what replies promised, on disk before they were sent.

Schema, version 1 (a change needs a new entry in ``_MIGRATIONS``, never an edit of an old one)::

    <data-root>/state.db        WAL, synchronous=FULL
      containers(id TEXT PRIMARY KEY, name TEXT UNIQUE, document BLOB)   cais.engine.documents
      facts(name TEXT PRIMARY KEY, value TEXT)                           daemon id, rebuilt
      quarantine(kind TEXT, id TEXT, document BLOB, reason TEXT, at_ns INTEGER)

One thread writes. Changes that arrive while a commit runs share the next one, so a hundred
containers that end together cost a few commits and not a hundred.

A row that cannot be read moves to ``quarantine``. A file that is no database is set aside as
``state.db.damaged-<time>`` after every row that can still be read was copied into a new one, which
takes its name when it is whole, and is marked by a fact until a daemon has started on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cais.database import Database
from cais.database.database import set_aside
from cais.database.reader import SUFFIXES
from cais.engine.documents import pack_record, unpack_record
from cais.errors import DataLossError, ExhaustedError, InternalError
from cais.linux.durable import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cais.engine.records import ContainerRecord

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE containers(id TEXT PRIMARY KEY, name TEXT UNIQUE, document BLOB NOT NULL)
        WITHOUT ROWID;
    CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE quarantine(kind TEXT, id TEXT, document BLOB, reason TEXT, at_ns INTEGER);
    """,
)
_PUT = "INSERT OR REPLACE INTO containers(id, name, document) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM containers WHERE id = ?"
_PUT_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
REBUILT = "rebuilt"
"""The fact of a database that was made anew: containers may be missing in it."""

Statement = tuple[str, tuple[object, ...]]


@dataclass(slots=True)
class Loaded:
    """What was found when the database was opened."""

    containers: list[ContainerRecord] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    """Ids of containers whose rows cannot be read."""

    is_damaged: bool = False
    """The file was made anew: containers may be missing, so nothing unknown may be deleted."""


class State:
    """The open database. Its coroutines return when the change is durable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: dict[str, Statement] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, path: Path) -> tuple[State, Loaded]:
        """Open or create the database and read everything.

        Blocks: reads the whole file.

        Raises:
            ConflictError: written by a newer version.

        """
        loaded = Loaded()
        try:
            _refuse_lost(path)
            database = Database(path, _MIGRATIONS)
            _read(database, loaded)
        except (DataLossError, sqlite3.DatabaseError) as exc:
            log.error("state database %s is damaged (%s): keeping what can be read", path, exc)  # noqa: TRY400
            rebuild(path)
            loaded = Loaded()
            database = Database(path, _MIGRATIONS)
            _read(database, loaded)
        return cls(database), loaded

    async def put(self, record: ContainerRecord) -> None:
        """Write a container; the record is encoded at once and may change afterwards."""
        self._enqueue(record)
        await self._durable()

    def put_later(self, record: ContainerRecord) -> None:
        """Write a container together with the next change, or when ``settle`` is called."""
        self._enqueue(record)

    async def delete(self, container_id: str) -> None:
        """Forget a container."""
        self._pending[container_id] = (_DELETE, (container_id,))
        await self._durable()

    async def set_fact(self, name: str, value: str) -> None:
        """Write a fact about the daemon."""
        self._pending[f"fact {name}"] = (_PUT_FACT, (name, value))
        await self._durable()

    async def forget_fact(self, name: str) -> None:
        """Forget a fact; idempotent."""
        self._pending[f"fact {name}"] = ("DELETE FROM facts WHERE name = ?", (name,))
        await self._durable()

    async def settle(self) -> None:
        """Write what ``put_later`` left."""
        if self._pending:
            await self._durable()

    async def close(self) -> None:
        """Write what is left and close the file."""
        with contextlib.suppress(ExhaustedError, InternalError):
            await self.settle()
        if self._flushing is not None:
            await self._flushing
        await asyncio.get_running_loop().run_in_executor(self._writer, self._database.close)
        self._writer.shutdown()

    def _enqueue(self, record: ContainerRecord) -> None:
        # Of several changes of one record only the last counts. Every record of a batch is whole,
        # so it does not matter that a name may pass from one to another within the batch.
        self._pending[record.id] = (_PUT, (record.id, record.name, pack_record(record)))

    async def _durable(self) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        """Commit what is pending until nothing is; never raises: the waiters get the failure."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            statements, self._pending = list(self._pending.values()), {}
            waiting, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._writer, _commit, self._database, statements)
            except Exception as exc:  # noqa: BLE001 - nobody else would wake the waiters
                _fail(waiting, exc)
            else:
                for done in waiting:
                    if not done.done():
                        done.set_result(None)


def _fail(waiting: list[asyncio.Future[None]], exc: Exception) -> None:
    kind = ExhaustedError if isinstance(exc, ExhaustedError) else InternalError
    for done in waiting:
        if not done.done():
            failure = kind(f"the state database cannot be written: {exc}")
            failure.__cause__ = exc
            done.set_exception(failure)


def _commit(database: Database, statements: list[Statement]) -> None:
    """Blocks: until the write-ahead log is on disk."""
    with database.transaction() as connection:
        for sql, values in statements:
            connection.execute(sql, values)


def _read(database: Database, loaded: Loaded) -> None:
    loaded.facts = dict(map(tuple, database.rows("SELECT name, value FROM facts")))
    loaded.is_damaged = REBUILT in loaded.facts
    for container_id, name, document in database.rows("SELECT id, name, document FROM containers"):
        try:
            record = _decode_row(container_id, name, document)
        except DataLossError as exc:
            log.error("container %s is put into quarantine: %s", container_id, exc)  # noqa: TRY400
            loaded.quarantined.append(str(container_id))
            _commit(database, _quarantine(container_id, document, str(exc)))
        else:
            loaded.containers.append(record)


def _decode_row(container_id: object, name: object, document: bytes) -> ContainerRecord:
    record = unpack_record(document)
    if record.id != container_id or record.name != name:
        raise DataLossError("its document belongs to another container")
    return record


def _quarantine(container_id: object, document: object, reason: str) -> list[Statement]:
    return [
        (
            "INSERT INTO quarantine VALUES ('container', ?, ?, ?, ?)",
            (container_id, document, reason, time.time_ns()),
        ),
        (_DELETE, (container_id,)),
    ]


def _refuse_lost(path: Path) -> None:
    """DataLossError if there was a database, which is told from the copies of its records."""
    if path.exists():
        if path.stat().st_size == 0:
            raise DataLossError("the file is empty")
    elif path.with_name("copies.db").exists():
        raise DataLossError("the file is gone")


def rebuild(path: Path, copies: Iterable[ContainerRecord] = ()) -> int:
    """Put a new file in the place of a damaged one, which is set aside.

    Until the last step, a rename, the damaged file or nothing has the name.

    Args:
        path: of the database. Nobody has it open.
        copies: records to put in besides those that can still be read.

    Returns:
        How many containers it has.

    Blocks: reads the whole file.

    """
    rescued = {record.id: record for record in (_salvage(path) if path.exists() else ())}
    _add_copies(rescued, copies)
    passing = path.with_name(f"{path.name}.new")
    for suffix in SUFFIXES:
        passing.with_name(passing.name + suffix).unlink(missing_ok=True)
    database = Database(passing, _MIGRATIONS)
    try:
        rows: list[Statement] = [(_PUT_FACT, (REBUILT, str(time.time_ns())))]
        rows += [(_PUT, (one.id, one.name, pack_record(one))) for one in rescued.values()]
        _commit(database, rows)
    finally:
        database.close()  # what was in its write-ahead log is in the file then
    set_aside(path)
    passing.rename(path)
    sync_directory(path.parent)
    return len(rescued)


def _add_copies(rescued: dict[str, ContainerRecord], copies: Iterable[ContainerRecord]) -> None:
    names = {record.name for record in rescued.values()}
    for record in copies:
        if record.id in rescued:
            continue
        if record.name in names:  # of a container that was there before
            record.name = f"/{record.id[:12]}"
        names.add(record.name)
        rescued[record.id] = record


def _salvage(path: Path) -> Iterator[ContainerRecord]:
    """Yield the containers of a damaged file, up to where it cannot be read."""
    connection = sqlite3.connect(path)
    try:
        for order in ("ASC", "DESC"):  # from both ends: a bad page in the middle stops a scan
            yield from _salvage_scan(connection, order)
    finally:
        connection.close()


def _salvage_scan(connection: sqlite3.Connection, order: str) -> Iterator[ContainerRecord]:
    with contextlib.suppress(sqlite3.DatabaseError):
        query = f"SELECT id, name, document FROM containers ORDER BY id {order}"  # noqa: S608
        for container_id, name, document in connection.execute(query):
            with contextlib.suppress(DataLossError):
                yield _decode_row(container_id, name, document)
