"""The image tables: which images exist, their layers and their names.

Schema, version 2 (a change appends to ``_MIGRATIONS``)::

    <data-root>/images.db        WAL, synchronous=FULL
      images(id PRIMARY KEY, manifest, parent, created_ns, tagged_ns)
      layers(image_id -> images, position, diff_id, chain_id, blob, blob_size_bytes, media_type,
             size_bytes)         lowest first; size_bytes unpacked
      names(repository, tag, image_id -> images)        repository in full: docker.io/library/x
      digests(repository, digest, image_id -> images)   as a registry knows the image
      packed(diff_id PRIMARY KEY, digest, size_bytes)   what a plain layer is in registries
      locations(digest, repository)                     where blobs were seen: see ``placements``

The configuration (blob ``id``), the manifest and the layers are blobs of the content store; the
unpacked layers are snapshots named by chain id. Rows are written after both.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cais.database import Database
from cais.images.placements import Placements
from cais.images.records import StoredLayer, parse_time_ns
from cais.spec.digest import ChainId, DiffId, Digest, ImageId
from cais.spec.reference import familiar_repository

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from pathlib import Path

    from cais.images.records import NewImage
    from cais.spec.reference import Reference

_MIGRATIONS = (
    """
    CREATE TABLE images(
        id TEXT PRIMARY KEY,
        manifest TEXT NOT NULL,
        parent TEXT,
        created_ns INTEGER NOT NULL,
        tagged_ns INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
    CREATE TABLE layers(
        image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        diff_id TEXT NOT NULL,
        chain_id TEXT NOT NULL,
        blob TEXT NOT NULL,
        blob_size_bytes INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY(image_id, position)) WITHOUT ROWID;
    CREATE INDEX layers_chain ON layers(chain_id);
    CREATE TABLE names(
        repository TEXT NOT NULL,
        tag TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
        PRIMARY KEY(repository, tag)) WITHOUT ROWID;
    CREATE INDEX names_image ON names(image_id);
    CREATE TABLE digests(
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
        PRIMARY KEY(repository, digest)) WITHOUT ROWID;
    CREATE INDEX digests_image ON digests(image_id)
    """,
    """
    CREATE TABLE packed(
        diff_id TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE locations(
        digest TEXT NOT NULL,
        repository TEXT NOT NULL,
        PRIMARY KEY(digest, repository)) WITHOUT ROWID
    """,
)
_is_prefix = re.compile(r"[0-9a-f]{1,64}").fullmatch


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One row of ``images`` with what belongs to it."""

    id: ImageId
    manifest: Digest
    parent: ImageId | None
    created_ns: int
    tagged_ns: int
    layers: tuple[StoredLayer, ...]
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A tag or a digest of a repository; ``is_digest`` says which."""

    repository: str
    is_digest: bool
    suffix: str

    def __str__(self) -> str:
        mark = "@" if self.is_digest else ":"
        return f"{familiar_repository(self.repository)}{mark}{self.suffix}"


class Catalog:
    """The open tables. Every change is durable when the method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.placements = Placements(database)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the database."""
        return cls(Database(path, _MIGRATIONS, mirrored=True))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def find(self, image_id: str) -> ImageRow | None:
        """Return one image."""
        rows = self._database.rows("SELECT * FROM images WHERE id = ?", (image_id,))
        return self._row(rows[0]) if rows else None

    def find_name(self, reference: Reference) -> ImageId | None:
        """Return the image of a name; a digest, when given, is what counts."""
        table, column = ("digests", "digest") if reference.digest else ("names", "tag")
        rows = self._database.rows(
            f"SELECT image_id FROM {table} WHERE repository = ? AND {column} = ?",  # noqa: S608 - constants
            (reference.repository, reference.digest or reference.tag),
        )
        return rows[0]["image_id"] if rows else None

    def tags(self, repository: str) -> list[tuple[str, ImageId]]:
        """Return a repository's tags, sorted, each with its image."""
        rows = self._database.rows(
            "SELECT tag, image_id FROM names WHERE repository = ? ORDER BY tag", (repository,)
        )
        return [(row["tag"], row["image_id"]) for row in rows]

    def find_prefix(self, text: str) -> ImageId | None:
        """Return the one image whose id starts so, with or without ``sha256:``."""
        prefix = text.removeprefix("sha256:")
        if not _is_prefix(prefix):
            return None
        rows = self._database.rows(
            "SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2",
            (f"sha256:{prefix}", f"sha256:{prefix}g"),
        )
        return rows[0]["id"] if len(rows) == 1 else None

    def all(self) -> list[ImageRow]:
        """Return every image, the newest first."""
        rows = self._database.rows("SELECT * FROM images ORDER BY created_ns DESC, id")
        return [self._row(row) for row in rows]

    def children(self, image_id: ImageId) -> list[ImageId]:
        """Return the images built on this one."""
        rows = self._database.rows(
            "SELECT id FROM images WHERE parent = ? ORDER BY id", (image_id,)
        )
        return [row["id"] for row in rows]

    def layer_size(self, chain: ChainId) -> int | None:
        """Return the unpacked size of a layer that some image has."""
        rows = self._database.rows(
            "SELECT size_bytes FROM layers WHERE chain_id = ? LIMIT 1", (chain,)
        )
        return rows[0]["size_bytes"] if rows else None

    def live(self) -> set[str]:
        """Return every blob digest and every chain id an image needs."""
        rows = self._database.rows(
            "SELECT id FROM images UNION SELECT manifest FROM images "
            "UNION SELECT blob FROM layers UNION SELECT chain_id FROM layers"
        )
        return {row[0] for row in rows}

    def register(
        self, images: Iterable[tuple[NewImage, Iterable[Reference]]]
    ) -> list[tuple[Reference, ImageId]]:
        """Add images and give them names, all or none; return names that moved, with old owners."""
        moved: list[tuple[Reference, ImageId]] = []
        with self._database.transaction() as connection:
            for image, names in images:
                _insert(connection, image)
                for name in names:
                    old = self.find_name(name)
                    if old is not None and old != image.id:
                        moved.append((name, old))
                    _set_name(connection, name, image.id)
        return moved

    def set_name(self, name: Reference, image_id: ImageId) -> None:
        """Give an image a name, or a registry's digest; taken ones move over."""
        with self._database.transaction() as connection:
            _set_name(connection, name, image_id)

    def remove_name(self, name: Name) -> None:
        """Take a name away."""
        table, column = ("digests", "digest") if name.is_digest else ("names", "tag")
        with self._database.transaction() as connection:
            connection.execute(
                f"DELETE FROM {table} WHERE repository = ? AND {column} = ?",  # noqa: S608 - constants
                (name.repository, name.suffix),
            )

    def remove(self, image_id: ImageId) -> None:
        """Forget an image and all its names."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM images WHERE id = ?", (image_id,))

    def _row(self, row: sqlite3.Row) -> ImageRow:
        image_id = row["id"]
        layers = self._database.rows(
            "SELECT * FROM layers WHERE image_id = ? ORDER BY position", (image_id,)
        )
        return ImageRow(
            image_id,
            row["manifest"],
            row["parent"],
            row["created_ns"],
            row["tagged_ns"],
            tuple(map(_layer, layers)),
            self.names(image_id),
        )

    def names(self, image_id: ImageId) -> tuple[Name, ...]:
        """Return an image's tags and digests, sorted by repository."""
        rows = self._database.rows(
            "SELECT repository, 0 AS is_digest, tag AS suffix FROM names WHERE image_id = ? "
            "UNION SELECT repository, 1, digest FROM digests WHERE image_id = ?",
            (image_id, image_id),
        )
        return tuple(sorted(Name(r["repository"], bool(r["is_digest"]), r["suffix"]) for r in rows))


def _layer(row: sqlite3.Row) -> StoredLayer:
    return StoredLayer(
        DiffId(Digest(row["diff_id"])),
        ChainId(Digest(row["chain_id"])),
        Digest(row["blob"]),
        row["blob_size_bytes"],
        row["media_type"],
        row["size_bytes"],
    )


def _insert(connection: sqlite3.Connection, image: NewImage) -> None:
    created_ns = parse_time_ns(image.config.created)
    inserted = connection.execute(
        "INSERT INTO images(id, manifest, parent, created_ns) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (image.id, image.manifest, image.parent, created_ns),
    )
    if inserted.rowcount == 0:
        return  # known already: its own manifest and blobs stay
    connection.executemany(
        "INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                image.id, position, layer.diff_id, layer.chain_id, layer.blob,
                layer.blob_size_bytes, layer.media_type, layer.size_bytes,
            )
            for position, layer in enumerate(image.layers)
        ],
    )  # fmt: skip


def _set_name(connection: sqlite3.Connection, name: Reference, image_id: ImageId) -> None:
    table, suffix = ("digests", name.digest) if name.digest else ("names", name.tag)
    connection.execute(
        f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",  # noqa: S608 - a constant
        (name.repository, suffix, image_id),
    )
    connection.execute("UPDATE images SET tagged_ns = ? WHERE id = ?", (time.time_ns(), image_id))
