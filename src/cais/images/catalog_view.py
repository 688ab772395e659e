"""What the image tables say, for whoever only reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.images.records import StoredLayer
from cais.spec.digest import ChainId, DiffId, Digest, ImageId
from cais.spec.reference import familiar_repository

if TYPE_CHECKING:
    import sqlite3

    from cais.database import Reader
    from cais.spec.reference import Reference

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

    @property
    def title(self) -> str:
        """What to call it: a name if it has one."""
        return str(self.names[0]) if self.names else self.id


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A tag or a digest of a repository; ``is_digest`` says which."""

    repository: str
    is_digest: bool
    suffix: str

    def __str__(self) -> str:
        mark = "@" if self.is_digest else ":"
        return f"{familiar_repository(self.repository)}{mark}{self.suffix}"


class CatalogView:
    """The tables of ``catalog``, open for reading."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def find(self, image_id: str) -> ImageRow | None:
        """Return one image."""
        rows = self._reader.rows("SELECT * FROM images WHERE id = ?", (image_id,))
        return self._row(rows[0]) if rows else None

    def find_name(self, reference: Reference) -> ImageId | None:
        """Return the image of a name; a digest, when given, is what counts."""
        table, column = ("digests", "digest") if reference.digest else ("names", "tag")
        rows = self._reader.rows(
            f"SELECT image_id FROM {table} WHERE repository = ? AND {column} = ?",  # noqa: S608 - constants
            (reference.repository, reference.digest or reference.tag),
        )
        return rows[0]["image_id"] if rows else None

    def tags(self, repository: str) -> list[tuple[str, ImageId]]:
        """Return a repository's tags, sorted, each with its image."""
        rows = self._reader.rows(
            "SELECT tag, image_id FROM names WHERE repository = ? ORDER BY tag", (repository,)
        )
        return [(row["tag"], row["image_id"]) for row in rows]

    def repositories(self) -> list[str]:
        """Return every repository that an image has a name in, sorted."""
        rows = self._reader.rows(
            "SELECT repository FROM names UNION SELECT repository FROM digests ORDER BY repository"
        )
        return [row["repository"] for row in rows]

    def images_of(self, repository: str) -> list[ImageRow]:
        """Return the images that have a name in a repository."""
        rows = self._reader.rows(
            "SELECT * FROM images WHERE id IN (SELECT image_id FROM names WHERE repository = ? "
            "UNION SELECT image_id FROM digests WHERE repository = ?) ORDER BY id",
            (repository, repository),
        )
        return [self._row(row) for row in rows]

    def find_prefix(self, text: str) -> ImageId | None:
        """Return the one image whose id starts so, with or without ``sha256:``."""
        prefix = text.removeprefix("sha256:")
        if not _is_prefix(prefix):
            return None
        rows = self._reader.rows(
            "SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2",
            (f"sha256:{prefix}", f"sha256:{prefix}g"),
        )
        return rows[0]["id"] if len(rows) == 1 else None

    def all(self) -> list[ImageRow]:
        """Return every image, the newest first."""
        rows = self._reader.rows("SELECT * FROM images ORDER BY created_ns DESC, id")
        return [self._row(row) for row in rows]

    def children(self, image_id: ImageId) -> list[ImageId]:
        """Return the images built on this one."""
        rows = self._reader.rows("SELECT id FROM images WHERE parent = ? ORDER BY id", (image_id,))
        return [row["id"] for row in rows]

    def layer_size(self, chain: ChainId) -> int | None:
        """Return the unpacked size of a layer that some image has."""
        rows = self._reader.rows(
            "SELECT size_bytes FROM layers WHERE chain_id = ? LIMIT 1", (chain,)
        )
        return rows[0]["size_bytes"] if rows else None

    def live(self) -> set[str]:
        """Return every blob digest and every chain id an image needs."""
        rows = self._reader.rows(
            "SELECT id FROM images UNION SELECT manifest FROM images "
            "UNION SELECT blob FROM layers UNION SELECT chain_id FROM layers"
        )
        return {row[0] for row in rows}

    def names(self, image_id: ImageId) -> tuple[Name, ...]:
        """Return an image's tags and digests, sorted by repository."""
        rows = self._reader.rows(
            "SELECT repository, 0 AS is_digest, tag AS suffix FROM names WHERE image_id = ? "
            "UNION SELECT repository, 1, digest FROM digests WHERE image_id = ?",
            (image_id, image_id),
        )
        return tuple(sorted(Name(r["repository"], bool(r["is_digest"]), r["suffix"]) for r in rows))

    def _row(self, row: sqlite3.Row) -> ImageRow:
        image_id = row["id"]
        layers = self._reader.rows(
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


def _layer(row: sqlite3.Row) -> StoredLayer:
    return StoredLayer(
        DiffId(Digest(row["diff_id"])),
        ChainId(Digest(row["chain_id"])),
        Digest(row["blob"]),
        row["blob_size_bytes"],
        row["media_type"],
        row["size_bytes"],
    )
