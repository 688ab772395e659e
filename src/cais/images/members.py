"""The members of an image archive, spooled into the content store's ingest area.

An archive's index comes last and its members in any order, so all of them are taken in first:
hashed as they stream, unreferenced, and deleted at the end unless the index wanted them. Members
are found by name in a table, never on a file system, so a name cannot lead anywhere (row C6 of
``SECURITY.md``); links between members, which older Dockers write for layers that repeat, are
followed in the same table.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from typing import TYPE_CHECKING, Self

from cais.content.blobs import Blob
from cais.errors import ExhaustedError
from cais.images.tar import HARD_LINK, REGULAR, SYMLINK, TarReader
from cais.spec.digest import Digest, DigestMismatchError
from cais.spec.image import LIMIT_BYTES, InvalidImageError

if TYPE_CHECKING:
    from typing import BinaryIO

    from cais.content.leases import Lease
    from cais.content.store import ContentStore, Ingest
    from cais.images.compression import Readable
    from cais.images.tar import Entry

MEMBER_LIMIT = 20_000
SIZE_LIMIT_BYTES = 1 << 40
MANIFEST_LIMIT_BYTES = 1024 * 1024
_LINK_LIMIT = 8
_named_by_digest = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?").fullmatch


class Members:
    """All members of one archive; used with ``with``, whose end deletes what was not committed."""

    def __init__(self, content: ContentStore, lease: Lease) -> None:
        self._content = content
        self._lease = lease
        self._stack = contextlib.ExitStack()
        self._files: dict[str, Ingest] = {}
        self._links: dict[str, str] = {}
        self._blobs: dict[Digest, Blob] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def spool(self, source: Readable) -> None:
        """Take in every member of an uncompressed archive.

        Raises:
            TarError: malformed.
            InvalidImageError: a name twice.
            ExhaustedError: more members or bytes than an archive may have, or the disk is full.

        """
        reader = TarReader(source)
        for count, entry in enumerate(reader):
            if count >= MEMBER_LIMIT or reader.position + entry.size > SIZE_LIMIT_BYTES:
                raise ExhaustedError(
                    f"image archive has more than {MEMBER_LIMIT} members or "
                    f"{SIZE_LIMIT_BYTES} bytes"
                )
            self._take(entry, reader)

    def has(self, name: str) -> bool:
        """Say whether there is such a file."""
        return self._find(name) is not None

    def read(self, name: str, limit_bytes: int = LIMIT_BYTES) -> bytes:
        """Return a small member's bytes.

        Raises:
            InvalidImageError: absent, no regular file, or larger than the limit.

        """
        ingest = self._get(name)
        if ingest.size_bytes > limit_bytes:
            raise InvalidImageError(
                f"{_shown(name)} has {ingest.size_bytes} bytes: the limit is {limit_bytes}"
            )
        _check_name(name, ingest.digest)
        with self._open(ingest) as member:
            return member.read()

    def describe(self, name: str) -> Blob:
        """Return what ``commit`` will; raises as ``read``."""
        ingest = self._get(name)
        _check_name(name, ingest.digest)
        return Blob(ingest.digest, ingest.size_bytes)

    def open(self, name: str) -> BinaryIO:
        """Open a member for reading, also while another thread commits it; the caller closes it."""
        return self._open(self._get(name))

    def commit(self, name: str) -> Blob:
        """Make a member a blob under the lease; raises as ``read``, and as ``Ingest.commit``."""
        ingest = self._get(name)
        _check_name(name, ingest.digest)
        blob = self._blobs.get(ingest.digest)
        if blob is None:
            blob = self._blobs[ingest.digest] = ingest.commit(self._lease)
        return blob

    def _take(self, entry: Entry, reader: TarReader) -> None:
        name = _clean(entry.name)
        if name in self._files or name in self._links:
            raise InvalidImageError(f"image archive has two members {_shown(name)}")
        if entry.kind == SYMLINK:
            self._links[name] = _clean(posixpath.join(posixpath.dirname(name), entry.link))
        elif entry.kind == HARD_LINK:
            self._links[name] = _clean(entry.link)
        elif entry.kind == REGULAR and entry.sparse is None:
            ingest = self._stack.enter_context(self._content.open_ingest())
            while chunk := reader.read(entry.size):
                ingest.write(chunk)
            ingest.finish()
            self._files[name] = ingest

    def _open(self, ingest: Ingest) -> BinaryIO:
        try:
            return ingest.open_written()
        except FileNotFoundError:  # committed: it has its name now
            return self._content.open_blob(ingest.digest)

    def _find(self, name: str) -> Ingest | None:
        name = _clean(name)
        for _ in range(_LINK_LIMIT):
            if name not in self._links:
                break
            name = self._links[name]
        return self._files.get(name)

    def _get(self, name: str) -> Ingest:
        ingest = self._find(name)
        if ingest is None:
            raise InvalidImageError(f"image archive has no regular file {_shown(name)}")
        return ingest


def _clean(name: str) -> str:
    return posixpath.normpath(f"/{name}").lstrip("/")


def _check_name(name: str, actual: Digest) -> None:
    """Compare content with a name that is its digest."""
    match = _named_by_digest(_clean(name))
    if match and f"sha256:{match[1]}" != actual:
        raise DigestMismatchError(_shown(name), Digest(f"sha256:{match[1]}"), actual)


def _shown(name: str) -> str:
    return repr(name[:200])
