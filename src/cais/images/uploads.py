"""Single blobs on their way to a registry.

Each is asked for first; then the registry is asked to take it over from another of its
repositories; only then is it sent. A layer that is kept plain goes as gzip, compressed while it is
sent and always to the same bytes, so that what it became can be remembered and asked for.

Spec: OCI distribution-spec 1.1, "Pushing blobs", "Mounting a blob from another repository".
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from cais.content.store import Blob
from cais.images.gzip_stream import compressed
from cais.images.retries import retried
from cais.registry.errors import RegistryError
from cais.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.content.store import ContentStore
    from cais.images.placements import Placements
    from cais.images.transfers import Line
    from cais.registry.cancel import Cancel
    from cais.registry.origin import Url
    from cais.registry.repository import Repository
    from cais.spec.digest import DiffId
    from cais.spec.reference import Reference

_PIECE_BYTES = 256 * 1024
_MOUNT_CANDIDATES = 3


class Uploads:
    """Sends blobs of one store to one repository. Methods may be called from several threads.

    Args:
        content: where the blobs are, under a lease of the caller's.
        placements: what is known of layers in registries.
        target: the repository, with the right to push.
        reference: names it.
        cancel: ends all uploads.

    """

    def __init__(
        self,
        content: ContentStore,
        placements: Placements,
        target: Repository,
        reference: Reference,
        cancel: Cancel,
    ) -> None:
        self._content = content
        self._placements = placements
        self._target = target
        self._reference = reference
        self._cancel = cancel

    def send(self, blob: Blob, line: Line) -> None:
        """Bring a blob to the repository as it is, unless it is there."""

        def attempt() -> None:
            place = self._place(blob, line)
            if place is not None:
                self._target.upload_blob(
                    blob.digest, blob.size_bytes, lambda: self._pieces(blob, line), place
                )
                line.say("Pushed")

        retried(attempt, self._cancel, line.say)

    def send_packed(self, diff_id: DiffId, plain: Blob, line: Line) -> Blob:
        """Bring a plain layer to the repository as gzip, unless it is there; return what it is."""

        def attempt() -> Blob:
            known = self._placements.packed(diff_id)
            place = self._place(known, line) if known else self._target.begin_upload()
            if place is None:
                assert known is not None
                return known
            packed = _Packed(self._pieces(plain, line))
            place = self._target.stream_blob(packed, place)
            blob = packed.result()
            self._target.finish_upload(blob.digest, place)
            self._placements.remember_packed(diff_id, blob)
            line.say("Pushed")
            return blob

        return retried(attempt, self._cancel, line.say)

    def _place(self, blob: Blob, line: Line) -> Url | None:
        """Return where to send a blob; None: the repository has it, now at the latest."""
        if self._target.has_blob(blob.digest):
            line.say("Layer already exists")
            return None
        place = None
        for other in self._placements.elsewhere(blob.digest, self._reference)[:_MOUNT_CANDIDATES]:
            with contextlib.suppress(RegistryError):  # one that does not mount takes blobs
                place = self._target.mount_blob(blob.digest, other)
                if place is None:
                    line.say(f"Mounted from {other}")
                    return None
        return place or self._target.begin_upload()

    def _pieces(self, blob: Blob, line: Line) -> Iterator[bytes]:
        sent = 0
        with self._content.open_blob(blob.digest) as source:
            while piece := source.read(_PIECE_BYTES):
                self._cancel.check()
                yield piece
                sent += len(piece)
                line.count("Pushing", sent, blob.size_bytes)


class _Packed:
    """A stream as gzip; iterated once."""

    def __init__(self, plain: Iterator[bytes]) -> None:
        self._plain = plain
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for packed in compressed(self._plain):
            self._hash.update(packed)
            self._size_bytes += len(packed)
            yield packed

    def result(self) -> Blob:
        """Return what came out, once all of it has."""
        return Blob(Digest(f"sha256:{self._hash.hexdigest()}"), self._size_bytes)
