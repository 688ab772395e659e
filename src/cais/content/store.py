"""Blobs by digest, kept exactly as they came.

On disk::

    <data-root>/content/             0700
      blobs/sha256/<hex>             0444, complete and verified; never changes
      ingest/<id>                    being written; whatever is here at start-up is deleted

A blob is written to ingest, hashed as it streams, fsynced, renamed in, and the directory fsynced
(SECURITY.md F-5). Layers stay as they were loaded, plain or compressed, so that what is saved or
pushed later has the digest it had. Nothing may refer to a blob before ``commit`` returned; what no
image and no lease refers to is deleted by ``collect``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from typing import TYPE_CHECKING, BinaryIO, Self

from cais.content.blobs import Blob, BlobNotFoundError, Blobs
from cais.content.leases import Leases
from cais.errors import (
    CaisError,
    ExhaustedError,
    InternalError,
)
from cais.linux.filesystem import start_writing
from cais.spec.digest import Digest, DigestMismatchError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from cais.content.leases import Lease


__all__ = ["Blob", "BlobNotFoundError", "ContentStore", "Ingest"]

_HAND_OVER_BYTES = 8 * 1024 * 1024
"""Written by the disk while the next of them are received and hashed."""


class ContentStore(Blobs):
    """The blobs of one data root. Methods may be called from any thread."""

    def __init__(self, root: Path) -> None:
        """Open or create the store below ``root``; unfinished ingests are deleted."""
        super().__init__(root)
        self.leases = Leases()
        self._ingest = root / "ingest"
        for directory in (root, root / "blobs", self._blobs, self._ingest):
            directory.mkdir(0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        for leftover in self._ingest.iterdir():
            leftover.unlink()

    def open_ingest(self) -> Ingest:
        """Return a writer for a new blob, to be used with ``with``."""
        return Ingest(self, self._ingest / uuid.uuid4().hex)

    def write(self, content: bytes, lease: Lease) -> Blob:
        """Store a small blob."""
        with self.open_ingest() as ingest:
            ingest.write(content)
            return ingest.commit(lease)

    def collect(self, live: Collection[str]) -> int:
        """Delete the blobs that neither ``live`` nor a lease names; return the bytes freed.

        Those that another program shares stay: deleting them here would free nothing.
        The caller keeps ``live`` true meanwhile: it holds ``leases.held()``.
        """
        freed = 0
        leased = self.leases.names()
        for blob in list(self.walk()):
            is_needed = blob.digest in live or blob.digest in leased
            if not is_needed and not self._is_shared(blob.digest):
                self._path(blob.digest).unlink(missing_ok=True)
                freed += blob.size_bytes
        return freed

    def _is_shared(self, digest: Digest) -> bool:
        """Whether another program has a name for the same bytes: see ``linked``."""
        try:
            return self._path(digest).stat().st_nlink > 1
        except FileNotFoundError:
            return False

    def _rename_in(self, source: Path, digest: Digest) -> None:
        source.chmod(0o444)
        source.replace(self._path(digest))
        directory_fd = os.open(self._blobs, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory_fd)
        finally:
            os.close(directory_fd)


class Ingest:
    """A blob on its way in. Leaving the ``with`` block without a commit deletes it."""

    def __init__(self, store: ContentStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._handed_over = 0  # of its bytes, to the disk
        self.size_bytes = 0

    def __enter__(self) -> Self:
        """Begin. ExhaustedError, InternalError: the disk is full, or failed."""
        try:
            self._file = self._path.open("xb", buffering=0)
        except OSError as exc:
            raise _storage_error("begin a blob", exc, self._path.parent) from exc
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append; hashed as it goes.

        Raises:
            ExhaustedError: "no space left on device".

        """
        assert self._file is not None
        self._hash.update(chunk)
        self.size_bytes += len(chunk)
        try:
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]
        except OSError as exc:
            raise _storage_error("write a blob", exc, self._path.parent) from exc
        if (new := self.size_bytes - self._handed_over) >= _HAND_OVER_BYTES:
            start_writing(self._file.fileno(), self._handed_over, new)
            self._handed_over = self.size_bytes

    def restart(self) -> None:
        """Forget what was written."""
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self._handed_over = self.size_bytes = 0

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def finish(self) -> None:
        """Close the file, keeping it for a later ``commit``: a descriptor less."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def open_written(self) -> BinaryIO:
        """Open for reading what was written; the caller closes it."""
        return self._path.open("rb")

    def commit(self, lease: Lease, expected: Digest | None = None) -> Blob:
        """Make it a blob, protected by ``lease``; durable when this returns.

        A failed fsync means the bytes are lost, so the ingest is deleted.

        Raises:
            DigestMismatchError: not ``expected``; nothing is kept.
            ExhaustedError: the disk is full.
            InternalError: the disk failed.

        """
        digest = self.digest
        if expected is not None and digest != expected:
            self.abort()
            raise DigestMismatchError("blob", expected, digest)
        lease.add(digest)
        try:
            self._sync()
            self._store._rename_in(self._path, digest)  # noqa: SLF001 - two halves of one thing
        except OSError as exc:
            self.abort()
            raise _storage_error(f"store blob {digest}", exc, self._path.parent) from exc
        return Blob(digest, self.size_bytes)

    def abort(self) -> None:
        """Delete what was written; after a commit there is nothing to delete."""
        self.finish()
        self._path.unlink(missing_ok=True)

    def _sync(self) -> None:
        if self._file is None:
            self._file = self._path.open("rb+", buffering=0)
        os.fsync(self._file.fileno())
        self.finish()


def _storage_error(step: str, exc: OSError, directory: Path) -> CaisError:
    if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
        return InternalError(f"{step}: {exc.strerror}")
    facts = os.statvfs(directory)
    detail = ": no inodes" if facts.f_files and not facts.f_favail else ""
    return ExhaustedError(f"{step}: {exc.strerror}{detail}".lower())
