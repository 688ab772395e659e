"""The registry's rows: what each repository holds. Bytes are in the content store.

Schema, version 1 (a change appends to ``_MIGRATIONS``)::

    <root>/registry.db           WAL, synchronous=FULL; mirrored (``database.mirror``)
      blobs(repository, digest, size_bytes, since_ns)         pushed to or mounted in a repository
      manifests(repository, digest, size_bytes, media_type, artifact_type, subject, annotations,
                since_ns)                                     annotations: JSON
      needs(repository, manifest, digest, size_bytes, is_manifest)   what manifests are made of
      tags(repository, name, digest)

A repository is what rows name. A row is written after its bytes are durable; every read of a blob
asks for the row of that repository, so knowing a digest opens nothing.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from cais.database import Database
from cais.spec.digest import Digest

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from cais.registry.server.documents import Facts

_MIGRATIONS = (
    """
    CREATE TABLE blobs(
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        since_ns INTEGER NOT NULL,
        PRIMARY KEY(repository, digest)) WITHOUT ROWID;
    CREATE INDEX blobs_digest ON blobs(digest);
    CREATE TABLE manifests(
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        artifact_type TEXT NOT NULL,
        subject TEXT,
        annotations TEXT NOT NULL,
        since_ns INTEGER NOT NULL,
        PRIMARY KEY(repository, digest)) WITHOUT ROWID;
    CREATE INDEX manifests_subject ON manifests(repository, subject, digest);
    CREATE TABLE needs(
        repository TEXT NOT NULL,
        manifest TEXT NOT NULL,
        digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        is_manifest INTEGER NOT NULL,
        PRIMARY KEY(repository, manifest, digest),
        FOREIGN KEY(repository, manifest) REFERENCES manifests ON DELETE CASCADE) WITHOUT ROWID;
    CREATE INDEX needs_digest ON needs(repository, digest);
    CREATE TABLE tags(
        repository TEXT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY(repository, name),
        FOREIGN KEY(repository, digest) REFERENCES manifests ON DELETE CASCADE) WITHOUT ROWID;
    CREATE INDEX tags_digest ON tags(repository, digest);
    CREATE INDEX tags_order ON tags(repository, name COLLATE NOCASE, name)
    """,
)


class ManifestRow(NamedTuple):
    """A manifest of a repository."""

    digest: Digest
    size_bytes: int
    media_type: str
    artifact_type: str
    annotations: Mapping[str, str]


class Catalog:
    """The open tables. Every change is durable when the method returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the database, or rebuild it from its copy.

        Raises:
            DataLossError: both are damaged.
            ConflictError: a newer version wrote it.

        """
        return cls(Database(path, _MIGRATIONS, mirrored=True))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # Blobs

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a repository's blob; None: it has none such."""
        rows = self._database.rows(
            "SELECT size_bytes FROM blobs WHERE repository = ? AND digest = ?",
            (repository, digest),
        )
        return rows[0]["size_bytes"] if rows else None

    def find_blob(self, digest: Digest) -> int | None:
        """Return the size of a blob that any repository has."""
        rows = self._database.rows(
            "SELECT size_bytes FROM blobs WHERE digest = ? LIMIT 1", (digest,)
        )
        return rows[0]["size_bytes"] if rows else None

    def add_blob(self, repository: str, digest: Digest, size_bytes: int) -> None:
        """Put a blob into a repository; one that is there counts as new again."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?)",
                (repository, digest, size_bytes, time.time_ns()),
            )

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository; whether it was in."""
        with self._database.transaction() as connection:
            gone = connection.execute(
                "DELETE FROM blobs WHERE repository = ? AND digest = ?", (repository, digest)
            )
            return gone.rowcount > 0

    def needed_size(self, repository: str, digest: Digest) -> int | None:
        """Return the size that a manifest of the repository gives a blob."""
        rows = self._database.rows(
            "SELECT size_bytes FROM needs WHERE repository = ? AND digest = ? AND NOT is_manifest "
            "LIMIT 1",
            (repository, digest),
        )
        return rows[0]["size_bytes"] if rows else None

    # Manifests

    def has_repository(self, repository: str) -> bool:
        """Whether anything is in a repository."""
        return bool(
            self._database.rows(
                "SELECT 1 FROM manifests WHERE repository = ? UNION ALL "
                "SELECT 1 FROM blobs WHERE repository = ? LIMIT 1",
                (repository, repository),
            )
        )

    def find_manifest(self, repository: str, digest: str) -> ManifestRow | None:
        """Return a manifest by its digest."""
        rows = self._database.rows(
            "SELECT digest, size_bytes, media_type, artifact_type, annotations FROM manifests "
            "WHERE repository = ? AND digest = ?",
            (repository, digest),
        )
        return _manifest(rows[0]) if rows else None

    def find_tag(self, repository: str, name: str) -> Digest | None:
        """Return the digest a tag stands for."""
        rows = self._database.rows(
            "SELECT digest FROM tags WHERE repository = ? AND name = ?", (repository, name)
        )
        return Digest(rows[0]["digest"]) if rows else None

    def add_manifest(
        self, repository: str, digest: Digest, size_bytes: int, facts: Facts, tag: str | None
    ) -> None:
        """Put a manifest into a repository and give it a tag, which moves over if taken."""
        annotations = json.dumps(dict(facts.annotations))
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET media_type = excluded.media_type, since_ns = excluded.since_ns",
                (
                    repository, digest, size_bytes, facts.media_type, facts.artifact_type,
                    facts.subject, annotations, time.time_ns(),
                ),
            )  # fmt: skip
            connection.executemany(
                "INSERT OR REPLACE INTO needs VALUES (?, ?, ?, ?, ?)",
                [
                    (repository, digest, need.digest, need.size_bytes, need.is_manifest)
                    for need in facts.needs
                ],
            )
            if tag is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (repository, tag, digest)
                )

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Take a manifest and its tags out of a repository; whether it was in."""
        with self._database.transaction() as connection:
            gone = connection.execute(
                "DELETE FROM manifests WHERE repository = ? AND digest = ?", (repository, digest)
            )
            return gone.rowcount > 0

    def remove_tag(self, repository: str, name: str) -> bool:
        """Take a tag away, and nothing else; whether it was there."""
        with self._database.transaction() as connection:
            gone = connection.execute(
                "DELETE FROM tags WHERE repository = ? AND name = ?", (repository, name)
            )
            return gone.rowcount > 0

    # Lists

    def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` tags behind ``after``, sorted without regard to case."""
        rows = self._database.rows(
            "SELECT name FROM tags WHERE repository = ? "
            "AND (name COLLATE NOCASE > ? OR (name COLLATE NOCASE = ? AND name > ?)) "
            "ORDER BY name COLLATE NOCASE, name LIMIT ?",
            (repository, after, after, after, limit),
        )
        return [row["name"] for row in rows]

    def repositories(self, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` names of repositories with manifests behind ``after``."""
        rows = self._database.rows(
            "SELECT DISTINCT repository FROM manifests WHERE repository > ? "
            "ORDER BY repository LIMIT ?",
            (after, limit),
        )
        return [row["repository"] for row in rows]

    def referrers(
        self, repository: str, subject: Digest, artifact_type: str, after: str, limit: int
    ) -> list[ManifestRow]:
        """Return at most ``limit`` manifests about ``subject`` behind the digest ``after``.

        Args:
            artifact_type: only those; "" for all.

        """
        rows = self._database.rows(
            "SELECT digest, size_bytes, media_type, artifact_type, annotations FROM manifests "
            "WHERE repository = ? AND subject = ? AND digest > ? AND ? IN ('', artifact_type) "
            "ORDER BY digest LIMIT ?",
            (repository, subject, after, artifact_type, limit),
        )
        return [_manifest(row) for row in rows]

    # Collection

    def live(self) -> set[str]:
        """Return the digest of every blob and manifest that any repository holds."""
        rows = self._database.rows("SELECT digest FROM blobs UNION SELECT digest FROM manifests")
        return {row[0] for row in rows}

    def unneeded_blobs(self, before_ns: int) -> list[tuple[str, Digest]]:
        """Return (repository, digest) of old blobs that no manifest there is made of."""
        rows = self._database.rows(
            "SELECT repository, digest FROM blobs WHERE since_ns < ? AND NOT EXISTS ("
            "SELECT 1 FROM needs WHERE needs.repository = blobs.repository "
            "AND needs.digest = blobs.digest)",
            (before_ns,),
        )
        return [(row["repository"], Digest(row["digest"])) for row in rows]


def _manifest(row: sqlite3.Row) -> ManifestRow:
    return ManifestRow(
        Digest(row["digest"]),
        row["size_bytes"],
        row["media_type"],
        row["artifact_type"],
        json.loads(row["annotations"]),
    )
