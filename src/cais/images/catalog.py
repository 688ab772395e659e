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

import time
from typing import TYPE_CHECKING, Self

from cais.database import Database
from cais.images.catalog_view import CatalogView
from cais.images.placements import Placements
from cais.images.records import parse_time_ns

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from cais.images.catalog_view import Name
    from cais.images.records import NewImage
    from cais.spec.digest import ImageId
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


class Catalog(CatalogView):
    """The tables, open for writing too. Every change is durable when the method returns."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._database = database
        self.placements = Placements(database)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the database."""
        return cls(Database(path, _MIGRATIONS, mirrored=True))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def register(
        self,
        images: Iterable[tuple[NewImage, Iterable[Reference]]],
        replaced: Collection[ImageId] = (),
    ) -> list[tuple[Reference, ImageId]]:
        """Add images and give them names, all or none.

        Args:
            images: each with its names.
            replaced: those whose present blobs are lost: what came now takes their place.

        Returns:
            The names that moved, with their old owners.

        """
        moved: list[tuple[Reference, ImageId]] = []
        with self._database.transaction() as connection:
            for image, names in images:
                if image.id in replaced:
                    _forget_blobs(connection, image)
                _insert(connection, image)
                for name in names:
                    old = self.find_name(name)
                    if old is not None and old != image.id:
                        moved.append((name, old))
                    _set_name(connection, name, image.id)
        return moved

    def set_name(self, name: Reference, image_id: ImageId) -> bool:
        """Give an image a name, or a registry's digest; taken ones move over.

        Returns:
            Whether the image was there to be named; if not, nothing has changed.

        """
        with self._database.transaction() as connection:
            return _set_name(connection, name, image_id)

    def remove_name(self, name: Name, image_id: ImageId) -> bool:
        """Take a name away from an image; say whether it was that image's."""
        table, column = ("digests", "digest") if name.is_digest else ("names", "tag")
        with self._database.transaction() as connection:
            removed = connection.execute(
                f"DELETE FROM {table} WHERE repository = ? AND {column} = ? AND image_id = ?",  # noqa: S608 - constants
                (name.repository, name.suffix, image_id),
            )
            return removed.rowcount > 0

    def remove(self, image_id: ImageId) -> bool:
        """Forget an image, unless it has a name; say whether it is forgotten now."""
        with self._database.transaction() as connection:
            removed = connection.execute(
                "DELETE FROM images WHERE id = :id "
                "AND NOT EXISTS (SELECT 1 FROM names WHERE image_id = :id) "
                "AND NOT EXISTS (SELECT 1 FROM digests WHERE image_id = :id)",
                {"id": image_id},
            )
            return removed.rowcount > 0


def _insert(connection: sqlite3.Connection, image: NewImage) -> None:
    created_ns = parse_time_ns(image.config.created)
    connection.execute(
        "INSERT INTO images(id, manifest, parent, created_ns) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (image.id, image.manifest, image.parent, created_ns),
    )
    if connection.execute("SELECT 1 FROM layers WHERE image_id = ?", (image.id,)).fetchone():
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


def _forget_blobs(connection: sqlite3.Connection, image: NewImage) -> None:
    connection.execute("DELETE FROM layers WHERE image_id = ?", (image.id,))
    connection.execute("UPDATE images SET manifest = ? WHERE id = ?", (image.manifest, image.id))


def _set_name(connection: sqlite3.Connection, name: Reference, image_id: ImageId) -> bool:
    tagged = connection.execute(
        "UPDATE images SET tagged_ns = ? WHERE id = ?", (time.time_ns(), image_id)
    )
    if not tagged.rowcount:
        return False
    table, suffix = ("digests", name.digest) if name.digest else ("names", name.tag)
    connection.execute(
        f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",  # noqa: S608 - a constant
        (name.repository, suffix, image_id),
    )
    return True
