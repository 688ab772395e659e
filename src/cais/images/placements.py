"""What is known of layers in registries: memories that save sending them again.

A layer that is kept plain is pushed as gzip. What that is, its digest and size, is remembered, so
that a later push can ask for it before compressing. So is where each blob was seen, because a
registry takes a blob over from another of its repositories. Both are guesses: a registry confirms
them, or the blob is sent.

Tables ``packed`` and ``locations`` of ``catalog``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.content.store import Blob
from cais.spec.digest import Digest
from cais.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.database import Database
    from cais.spec.digest import DiffId
    from cais.spec.reference import Reference

_FORGET_PACKED = "DELETE FROM packed WHERE diff_id NOT IN (SELECT diff_id FROM layers)"
_FORGET_LOCATIONS = (
    "DELETE FROM locations WHERE digest NOT IN "
    "(SELECT blob FROM layers UNION SELECT digest FROM packed)"
)


class Placements:
    """The memories of one image store; those of layers no image has go with the next change."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def packed(self, diff_id: DiffId) -> Blob | None:
        """Return what a plain layer was compressed to."""
        rows = self._database.rows("SELECT * FROM packed WHERE diff_id = ?", (diff_id,))
        return Blob(Digest(rows[0]["digest"]), rows[0]["size_bytes"]) if rows else None

    def remember_packed(self, diff_id: DiffId, blob: Blob) -> None:
        """Take note of what a plain layer is when it is compressed."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO packed VALUES (?, ?, ?)",
                (diff_id, blob.digest, blob.size_bytes),
            )

    def elsewhere(self, digest: Digest, target: Reference) -> list[str]:
        """Return other repositories of ``target``'s registry that had a blob, by their paths."""
        rows = self._database.rows(
            "SELECT repository FROM locations WHERE digest = ? ORDER BY repository", (digest,)
        )
        known = [parse_reference(row["repository"]) for row in rows]
        paths = [one.path for one in known if one.domain == target.domain]
        return [path for path in paths if path != target.path]

    def remember_location(self, repository: str, digests: Iterable[Digest]) -> None:
        """Take note that a repository, named in full, has blobs of images that are kept here."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO locations VALUES (?, ?)",
                [(digest, repository) for digest in digests],
            )
            connection.execute(_FORGET_PACKED)
            connection.execute(_FORGET_LOCATIONS)
