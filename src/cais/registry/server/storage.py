"""Blobs and rows together: what a push promises, and what may be deleted.

Order of a push: bytes synced, row committed, reply sent; a crash between leaves bytes that no row
names, which the next ``collect`` deletes. One copy of a blob serves every repository.

A blob that no manifest needs yet is about to be: clients push layers first, and ask first whether
they are there. So what was pushed, mounted or asked for in the last ``GRACE_S`` stays.

Methods block and may be called from any thread.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from cais.content.blobs import BlobNotFoundError
from cais.errors import DataLossError
from cais.registry.server.documents import read_manifest
from cais.registry.server.errors import RefusalError, blob_unknown, manifest_unknown
from cais.registry.server.fields import is_digest
from cais.spec.digest import Digest, DigestMismatchError, digest_of
from cais.spec.image import LIMIT_BYTES

if TYPE_CHECKING:
    from cais.content.store import ContentStore, Ingest
    from cais.registry.server.catalog import Catalog, ManifestRow
    from cais.registry.server.documents import Facts, Need
    from cais.registry.server.shelf import Lender

GRACE_S = 24 * 3600.0
_PIECE_BYTES = 1024 * 1024


class HeldManifest(NamedTuple):
    """A manifest's bytes and what they are."""

    content: bytes
    media_type: str
    digest: Digest


class OpenBlob(NamedTuple):
    """A blob ready to be read; whoever has it closes ``file``."""

    file: BinaryIO
    size_bytes: int


class Storage:
    """What the registry itself holds.

    Args:
        content: the blobs.
        catalog: the rows.
        grace_s: how long a blob without a manifest stays.
        lender: has more, which clients are told of and need not send.

    """

    def __init__(
        self,
        content: ContentStore,
        catalog: Catalog,
        *,
        grace_s: float = GRACE_S,
        lender: Lender | None = None,
    ) -> None:
        self.content = content
        self.catalog = catalog
        self._lender = lender
        self._grace_s = grace_s
        self._began = time.monotonic()
        self._asked: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    # Blobs

    def open_blob(self, repository: str, digest: Digest) -> OpenBlob:
        """Open a blob of a repository. RefusalError: BLOB_UNKNOWN."""
        size = self.blob_size(repository, digest)
        if size is None:
            raise blob_unknown(digest)
        try:
            file = self.content.open_blob(digest)
        except BlobNotFoundError as exc:
            raise blob_unknown(digest) from exc
        if os.fstat(file.fileno()).st_size != size:  # damaged: whoever pushes it makes it whole
            file.close()
            raise blob_unknown(digest)
        return OpenBlob(file, size)

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size; None: the repository has none such. Who asks may rely on it."""
        size = self.catalog.blob_size(repository, digest)
        if size is not None:
            with self._lock:
                self._asked[repository, digest] = time.monotonic()
        return size

    def mount(self, repository: str, digest: Digest, source: str | None) -> bool:
        """Put another repository's blob into this one; whether it was there to be had.

        Args:
            source: the other repository; None: any.

        """
        catalog = self.catalog
        with self.content.leases.open() as lease:
            lease.add(digest)  # before it is looked for: it cannot go any more
            size = catalog.blob_size(source, digest) if source else catalog.find_blob(digest)
            if size is not None:
                catalog.add_blob(repository, digest, size)
                return True
        return source is not None and self._borrow(repository, digest, source) is not None

    def commit(self, repository: str, ingest: Ingest, digest: Digest) -> None:
        """Make what was received a blob of a repository; durable when this returns.

        Raises:
            DigestMismatchError: it has another digest; nothing is kept.
            ExhaustedError: the disk is full.

        """
        with self.content.leases.open() as lease:
            blob = ingest.commit(lease, digest)
            self.catalog.add_blob(repository, digest, blob.size_bytes)

    def remove_blob(self, repository: str, digest: Digest) -> None:
        """Take a blob out of a repository. RefusalError: BLOB_UNKNOWN."""
        if not self.catalog.remove_blob(repository, digest):
            raise blob_unknown(digest)

    # Manifests

    def read_manifest(self, repository: str, reference: str) -> HeldManifest:
        """Return a manifest by tag or digest.

        Raises:
            RefusalError: MANIFEST_UNKNOWN.
            DataLossError: damaged on disk.

        """
        row = self.find_manifest(repository, reference)
        if row is None:
            raise manifest_unknown(reference)
        try:
            content = self.content.read(row.digest, LIMIT_BYTES)
        except BlobNotFoundError as exc:
            raise manifest_unknown(reference) from exc
        except DigestMismatchError as exc:
            raise DataLossError(str(exc)) from exc
        return HeldManifest(content, row.media_type, row.digest)

    def find_manifest(self, repository: str, reference: str) -> ManifestRow | None:
        """Return a manifest's row."""
        digest: str | None = reference
        if not is_digest(reference):
            digest = self.catalog.find_tag(repository, reference)
        return self.catalog.find_manifest(repository, digest) if digest else None

    def put_manifest(
        self, repository: str, reference: str, content: bytes, declared: str
    ) -> tuple[Digest, Facts]:
        """Store a manifest whose parts are all in the repository.

        Args:
            reference: a tag, or the digest it must have.
            content: kept exactly as it is.
            declared: its media type, as the client says.

        Raises:
            RefusalError: MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN.
            DigestMismatchError: it has another digest.

        """
        digest = digest_of(content)
        if is_digest(reference) and reference != digest:
            raise DigestMismatchError("manifest", Digest(reference), digest)
        facts = read_manifest(content, declared)
        with self.content.leases.open() as lease:
            for need in facts.needs:
                lease.add(need.digest)
            self._check_needs(repository, facts)
            self._keep_manifest(repository, reference, content, facts)
        return digest, facts

    def keep_manifest(self, repository: str, reference: str, content: bytes, declared: str) -> None:
        """Store a manifest of an upstream, whose parts may come later."""
        self._keep_manifest(repository, reference, content, read_manifest(content, declared))

    def remove_manifest(self, repository: str, reference: str) -> None:
        """Remove a tag, or a manifest and all its tags. RefusalError: MANIFEST_UNKNOWN."""
        if is_digest(reference):
            gone = self.catalog.remove_manifest(repository, Digest(reference))
        else:
            gone = self.catalog.remove_tag(repository, reference)
        if not gone:
            raise manifest_unknown(reference)

    def _keep_manifest(self, repository: str, reference: str, content: bytes, facts: Facts) -> None:
        tag = None if is_digest(reference) else reference
        with self.content.leases.open() as lease:
            blob = self.content.write(content, lease)
            self.catalog.add_manifest(repository, blob.digest, blob.size_bytes, facts, tag)

    def _check_needs(self, repository: str, facts: Facts) -> None:
        for need in facts.needs:
            size = self._size_of(repository, need)
            if size is None:
                raise RefusalError(
                    "MANIFEST_BLOB_UNKNOWN",
                    "manifest references a blob or manifest unknown to the repository",
                    detail={"digest": need.digest},
                )
            if size != need.size_bytes:
                raise RefusalError(
                    "MANIFEST_INVALID",
                    f"{need.digest} has {size} bytes, the manifest says {need.size_bytes}",
                )

    def _size_of(self, repository: str, need: Need) -> int | None:
        """Return the size of a manifest's part; it is here then, if it was not before."""
        if not need.is_manifest:
            size = self.catalog.blob_size(repository, need.digest)
            return self._borrow(repository, need.digest, repository) if size is None else size
        row = self.catalog.find_manifest(repository, need.digest)
        if row is not None:
            return row.size_bytes
        lent = self._lender and self._lender.find_manifest(repository, need.digest)
        if not lent:
            return None
        self.put_manifest(repository, need.digest, lent.content, lent.media_type)
        return len(lent.content)

    def _borrow(self, repository: str, digest: Digest, source: str) -> int | None:
        """Keep a blob that is only lent, verified; return its size, None: it is not."""
        found = self._lender.open_blob(source, digest) if self._lender else None
        if found is None:
            return None
        with found.file, self.content.open_ingest() as ingest:
            while piece := found.file.read(_PIECE_BYTES):
                ingest.write(piece)
            self.commit(repository, ingest, digest)
            return ingest.size_bytes

    # Collection

    def collect(self) -> int:
        """Delete what nothing refers to; return the bytes of the blobs that went."""
        with self.content.leases.held():
            for repository, digest in self._abandoned():
                self.catalog.remove_blob(repository, digest)
            return self.content.collect(self.catalog.live())

    def _abandoned(self) -> list[tuple[str, Digest]]:
        """Return blobs that no manifest needs and nobody has asked for lately."""
        now = time.monotonic()
        with self._lock:
            for key, asked in list(self._asked.items()):
                if now - asked >= self._grace_s:
                    del self._asked[key]
        if now - self._began < self._grace_s:  # what was asked for before is not known
            return []
        leased = self.content.leases.names()
        before_ns = time.time_ns() - int(self._grace_s * 1e9)
        found = self.catalog.unneeded_blobs(before_ns)
        with self._lock:
            return [key for key in found if key not in self._asked and key[1] not in leased]

    def close(self) -> None:
        """Close the database."""
        self.catalog.close()
