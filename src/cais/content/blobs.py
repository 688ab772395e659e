"""Blobs by digest, for reading. Several programs may read one directory of them.

On disk::

    <root>/blobs/sha256/<hex>        0444, complete and verified; never changes
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from cais.errors import DataLossError, InvalidArgumentError, NotFoundError
from cais.linux.tree_size import allocated_size
from cais.spec.digest import Digest, DigestMismatchError, digest_of, encoded, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class BlobNotFoundError(NotFoundError):
    """The store holds no such blob."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"blob {digest} does not exist")
        self.digest = digest


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored blob."""

    digest: Digest
    size_bytes: int


class Blobs:
    """The blobs below ``root``. Methods may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; the caller closes it.

        Raises:
            BlobNotFoundError: there is none.

        """
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError:
            raise BlobNotFoundError(digest) from None

    def read(self, digest: Digest, limit_bytes: int) -> bytes:
        """Return a small blob's bytes, verified.

        Raises:
            BlobNotFoundError: there is none.
            InvalidArgumentError: larger than ``limit_bytes``.
            DigestMismatchError: damaged on disk.

        """
        with self.open_blob(digest) as blob:
            content = blob.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise InvalidArgumentError(f"blob {digest} is larger than {limit_bytes} bytes")
        if (actual := digest_of(content)) != digest:
            raise DigestMismatchError(f"blob {digest}", digest, actual)
        return content

    def stat(self, digest: Digest) -> Blob:
        """Return the facts about a blob. BlobNotFoundError."""
        try:
            return Blob(digest, self._path(digest).stat().st_size)
        except FileNotFoundError:
            raise BlobNotFoundError(digest) from None

    def holds(self, digest: Digest, size_bytes: int) -> bool:
        """Whether a blob is here and of its size; not read, for it may be large."""
        try:
            return self.stat(digest).size_bytes == size_bytes
        except BlobNotFoundError:
            return False

    def holds_document(self, digest: Digest, limit_bytes: int) -> bool:
        """Whether a small blob is here, read and verified; arguments as of ``read``."""
        try:
            self.read(digest, limit_bytes)
        except (BlobNotFoundError, InvalidArgumentError, DataLossError):
            return False
        return True

    def allocated(self, digest: Digest) -> int:
        """Return the bytes a blob has on the disk; 0: there is none."""
        try:
            return allocated_size(self._path(digest).stat())
        except FileNotFoundError:
            return 0

    def walk(self) -> Iterator[Blob]:
        """Yield every blob, in no order; one deleted meanwhile may be missing."""
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    size = entry.stat(follow_symlinks=False).st_size
                    yield Blob(Digest(f"sha256:{entry.name}"), size)

    def _path(self, digest: Digest) -> Path:
        return self._blobs / encoded(parse_digest(digest))
