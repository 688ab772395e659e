"""Push an image to a registry: what it does not have yet, then the manifest.

Blobs go as they are stored, so that an image keeps its digest wherever it goes. A layer the
registry has is not sent; one that came from another repository of the same registry is mounted.

Spec: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from cais.images.transfers import Line
from cais.spec.digest import parse_digest, short
from cais.spec.image import LIMIT_BYTES, OCI_MANIFEST, Manifest, decode
from cais.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cais.images.records import ImageRecord
    from cais.images.store import ImageStore
    from cais.images.transfers import Report
    from cais.registry.cancel import Cancel
    from cais.registry.origin import Url
    from cais.registry.repository import Repository
    from cais.spec.digest import Digest
    from cais.spec.reference import Reference

PARALLEL = 5
"""Docker's max-concurrent-uploads."""

_PIECE_BYTES = 256 * 1024


class PushedImage(NamedTuple):
    """What the registry has now."""

    tag: str
    digest: Digest
    size_bytes: int
    """Of the manifest."""


def push(
    store: ImageStore,
    record: ImageRecord,
    target: Repository,
    reference: Reference,
    *,
    report: Report,
    cancel: Cancel,
) -> PushedImage:
    """Send an image under ``reference.tag``.

    Args:
        store: where the image is.
        record: of the image; its blobs are leased meanwhile.
        target: the repository, with the right to push.
        reference: the name.
        report: told Docker's messages, from several threads.
        cancel: ends it.

    Raises:
        RegistryError, RegistryUnreachableError: as ``Repository``.

    Blocks: for as long as the registry takes.

    """
    with store.content.leases.open() as lease:
        lease.add(record.manifest)
        content = store.content.read(record.manifest, LIMIT_BYTES)
        manifest = decode(content, Manifest, f"manifest {record.manifest}")
        blobs = [manifest.config, *manifest.layers]
        for blob in blobs:
            lease.add(blob.digest)
        lines = [Line(report, short(layer.digest)) for layer in manifest.layers]
        for line in lines:
            line.say("Preparing")
        push_blob = _BlobPush(store, target, _siblings(record, reference), cancel)
        silent = Line(lambda _: None, "")
        sizes = [(parse_digest(blob.digest), blob.size) for blob in blobs]
        with ThreadPoolExecutor(PARALLEL, "upload") as pool:
            try:
                for _ in pool.map(push_blob.send, sizes, [silent, *lines]):
                    pass
            except BaseException:
                cancel.set()  # the others would only go on for nothing
                raise
        kind = manifest.media_type or OCI_MANIFEST
        digest = target.put_manifest(reference.tag or "latest", content, kind)
    store.add_digest(record.id, reference.repository, digest)
    return PushedImage(reference.tag or "latest", digest, len(content))


class _BlobPush:
    """Sends single blobs."""

    def __init__(
        self, store: ImageStore, target: Repository, siblings: Sequence[str], cancel: Cancel
    ) -> None:
        self._content = store.content
        self._target = target
        self._siblings = siblings
        self._cancel = cancel

    def send(self, blob: tuple[Digest, int], line: Line) -> None:
        digest, size = blob
        if self._target.has_blob(digest):
            line.say("Layer already exists")
            return
        place = self._mount_or_begin(digest, line)
        if place is None:
            return

        def pieces() -> Iterator[bytes]:
            sent = 0
            with self._content.open_blob(digest) as source:
                while piece := source.read(_PIECE_BYTES):
                    self._cancel.check()
                    yield piece
                    sent += len(piece)
                    line.count("Pushing", sent, size)

        self._target.upload_blob(digest, size, pieces, place)
        line.say("Pushed")

    def _mount_or_begin(self, digest: Digest, line: Line) -> Url | None:
        """Return where to send a blob; None: the registry took it from a sibling."""
        place = None
        for sibling in self._siblings:
            place = self._target.mount_blob(digest, sibling)
            if place is None:
                line.say(f"Mounted from {sibling}")
                return None
        return place or self._target.begin_upload()


def _siblings(record: ImageRecord, reference: Reference) -> list[str]:
    """Return the other repositories of the same registry that are known to have the image."""
    known = [parse_reference(name) for name in record.repo_digests]
    paths = {one.path for one in known if one.domain == reference.domain}
    return sorted(paths - {reference.path})[:1]
