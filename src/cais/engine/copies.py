"""A second copy of every record, from which a lost state database is rebuilt.

::

    <data-root>/copies.db    copies(id TEXT PRIMARY KEY, document BLOB)

A file for each container would take a block and a directory. The copy is as it was when the
container was created, renamed or updated: what it has been doing since is not in there. It need
not outlive a power cut by itself, for the state database does, so nothing waits for the disk.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from cais.database import Database
from cais.database.reader import SUFFIXES
from cais.engine.documents import pack_record, unpack_record
from cais.errors import DataLossError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Self

    from cais.engine.records import ContainerRecord

log = logging.getLogger(__name__)

_MIGRATIONS = ("CREATE TABLE copies(id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",)
_PUT = "INSERT OR REPLACE INTO copies(id, document) VALUES (?, ?)"


class Copies:
    """The open file. Methods may be called from any thread; they write and do not wait."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the file; a damaged one is begun anew. Blocks."""
        try:
            return cls(_open(path))
        except (DataLossError, sqlite3.DatabaseError) as exc:
            log.error("%s is damaged (%s): it is written anew", path, exc)  # noqa: TRY400
            for suffix in SUFFIXES:
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return cls(_open(path))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def put(self, record: ContainerRecord) -> None:
        """Copy a record."""
        with self._database.transaction() as connection:
            connection.execute(_PUT, (record.id, pack_record(record)))

    def delete(self, container_id: str) -> None:
        """Forget a container; idempotent."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM copies WHERE id = ?", (container_id,))

    def load(self) -> list[ContainerRecord]:
        """Return every record that can be read."""
        found = []
        for container_id, document in self._database.rows("SELECT id, document FROM copies"):
            try:
                found.append(unpack_record(document))
            except DataLossError as exc:
                log.error("the copy of container %s: %s", container_id, exc)  # noqa: TRY400
        return found

    def match(self, records: Iterable[ContainerRecord]) -> None:
        """Add the copies that are missing and drop those of no container."""
        present = {row[0] for row in self._database.rows("SELECT id FROM copies")}
        known = {record.id: record for record in records}
        with self._database.transaction() as connection:
            for container_id in present - known.keys():
                connection.execute("DELETE FROM copies WHERE id = ?", (container_id,))
            for container_id in known.keys() - present:
                connection.execute(_PUT, (container_id, pack_record(known[container_id])))


def _open(path: Path) -> Database:
    return Database(path, _MIGRATIONS, durable=False)
