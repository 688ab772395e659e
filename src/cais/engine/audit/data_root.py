"""A data root as files: where its parts are, who is using it, what its databases say."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cais.database import Reader
from cais.engine.documents import unpack_record
from cais.engine.state import REBUILT
from cais.errors import ConflictError, DataLossError, NotFoundError
from cais.images.catalog_view import CatalogView
from cais.shim.protocol import LOCK_NAME
from cais.snapshots.snapshotter import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.engine.records import ContainerRecord
    from cais.images.catalog_view import ImageRow
    from cais.images.records import StoredLayer

_SNAPSHOTS = """
    SELECT s.number, s.key, s.kind, p.number AS parent
    FROM snapshots s LEFT JOIN snapshots p ON s.parent = p.number ORDER BY s.number
"""


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """One row of ``snapshots.db``."""

    number: int
    """Of its directory."""

    key: str
    is_layer: bool
    parent: int | None
    """The number of the one below."""


class DataRoot:
    """An existing data root.

    Raises:
        NotFoundError: there is none.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.has_engine = (path / "content").is_dir() or (path / "state.db").exists()
        """Or else there are only registries."""

        if not self.has_engine and not self.registries:
            raise NotFoundError(f"{path} is not a data root: it has neither content nor state.db")
        self.sound_inodes: set[int] = set()
        """Of blobs that were read and are what their name says."""

        self.blobs = path / "content" / "blobs" / "sha256"
        self.snapshots = path / "snapshots"
        self.may_change = False
        """Whether the daemon's lock is held, by ``exclusive``."""

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[Self]:
        """Keep daemons away for the length of the block.

        Raises:
            ConflictError: one is there.

        """
        with _locked(self.path / "caisd.lock", os.O_CREAT) as is_free:
            if not is_free:
                raise ConflictError(
                    f"a daemon is using {self.path}: stop it to repair, or check without --repair"
                )
            self.may_change = True
            try:
                yield self
            finally:
                self.may_change = False

    @property
    def is_served(self) -> bool:
        """Whether a daemon is using it."""
        with _locked(self.path / "caisd.lock") as is_free:
            return not (is_free or self.may_change)

    @property
    def has_containers_running(self) -> bool:
        """Whether there is a shim, and containers that were running when a daemon last looked."""
        with _locked(self.path / LOCK_NAME) as is_free:
            return not is_free and any(record.state.running for record in self.containers())

    @property
    def may_lack_containers(self) -> bool:
        """Whether ``state.db`` was rebuilt, and no daemon has looked what else there is."""
        with self._reading(self.path / "state.db") as reader:
            query = "SELECT 1 FROM facts WHERE name = ?"
            return bool(reader and reader.rows(query, (REBUILT,)))

    @property
    def registries(self) -> list[Path]:
        """The roots of the registries that were served from here, one's own and caches."""
        found = [self.path / "registry", *sorted(self.path.glob("registry-cache-*"))]
        return [place for place in found if (place / "content").is_dir()]

    @contextlib.contextmanager
    def registry_at_rest(self, place: Path) -> Iterator[bool]:
        """Keep a registry's server away for the length of the block; False: one is at work."""
        with _locked(place / "lock") as is_free:
            yield is_free

    @property
    def databases(self) -> tuple[Path, ...]:
        """The databases without which nothing can be said of the rest."""
        return (
            self.path / "state.db",
            self.path / "images.db",
            self.snapshots / "snapshots.db",
        )

    def images(self) -> list[ImageRow]:
        """Return the rows of all images; nothing if the database cannot be read."""
        with self._reading(self.path / "images.db") as reader:
            return CatalogView(reader).all() if reader else []

    def layers(self) -> dict[str, StoredLayer]:
        """Return the layers that images have, by chain id; of two descriptions, any."""
        return {each.chain_id: each for image in self.images() for each in image.layers}

    def stored_snapshots(self) -> list[StoredSnapshot]:
        """Return the rows of all snapshots, parents first; nothing if they cannot be read."""
        with self._reading(self.snapshots / "snapshots.db") as reader:
            return [
                StoredSnapshot(
                    row["number"], row["key"], row["kind"] == Kind.COMMITTED.value, row["parent"]
                )
                for row in (reader.rows(_SNAPSHOTS) if reader else ())
            ]

    def containers(self) -> list[ContainerRecord]:
        """Return the records that can be read."""
        records = []
        with self._reading(self.path / "state.db") as reader:
            for row in reader.rows("SELECT document FROM containers") if reader else ():
                with contextlib.suppress(DataLossError):
                    records.append(unpack_record(row["document"]))
        return records

    def quarantine(self, path: Path, what: str) -> str:
        """Move a file or directory away from where it is used; return what to tell of it."""
        place = self.path / "quarantine"
        place.mkdir(0o700, exist_ok=True)
        target = place / f"{what}-{path.name}-{time.time_ns()}"
        path.rename(target)
        return f"moved to {target}"

    @contextlib.contextmanager
    def _reading(self, path: Path) -> Iterator[Reader | None]:
        """Give a reader of a database that ``databases`` found sound."""
        try:
            reader = Reader.open(path)
        except DataLossError:
            yield None
            return
        try:
            reader.rows("SELECT count(*) FROM sqlite_schema")
            yield reader
        except sqlite3.DatabaseError:
            yield None
        finally:
            reader.close()


@contextlib.contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[bool]:
    """Hold a lock for the length of the block; False: somebody else does. No file is free."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
