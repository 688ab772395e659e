"""Push an image to a registry: what it does not have yet, then the manifest.

An image that a registry knows under its manifest's digest goes as it is, so that it keeps that
digest wherever it goes. Any other one, such as one that was loaded, goes with its plain layers as
gzip; the layers here stay as they are.

Spec: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from cais.content.store import Blob
from cais.images.transfers import Line
from cais.images.uploads import Uploads
from cais.spec.digest import parse_digest, short
from cais.spec.image import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    LIMIT_BYTES,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    decode,
    encode,
    is_foreign,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.images.records import ImageRecord, StoredLayer
    from cais.images.store import ImageStore
    from cais.images.transfers import Report
    from cais.registry.cancel import Cancel
    from cais.registry.repository import Repository
    from cais.spec.digest import Digest
    from cais.spec.reference import Reference

PARALLEL = 5
"""Docker's max-concurrent-uploads."""

_PACKED = {OCI_LAYER: OCI_LAYER_GZIP, DOCKER_LAYER: DOCKER_LAYER_GZIP}


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
    with_foreign: bool = False,
    parallel: int = PARALLEL,
) -> PushedImage:
    """Send an image under ``reference.tag``.

    Args:
        store: where the image is.
        record: of the image; its blobs are leased meanwhile, whoever deletes it.
        target: the repository, with the right to push.
        reference: the name.
        report: told Docker's messages, from several threads.
        cancel: ends it.
        with_foreign: send layers, too, that may only be had from where their URLs lead.
        parallel: how many blobs at once.

    Raises:
        RegistryError, RegistryUnreachableError: as ``Repository``.

    Blocks: for as long as the registry takes.

    """
    with store.content.leases.open() as lease:
        for digest in (record.manifest, record.id, *(layer.blob for layer in record.layers)):
            lease.add(digest)
        content = store.content.read(record.manifest, LIMIT_BYTES)
        manifest = decode(content, Manifest, f"manifest {record.manifest}")
        uploads = Uploads(store.content, store.catalog.placements, target, reference, cancel)
        sent = _Push(uploads, record, report, cancel, with_foreign=with_foreign)
        layers = sent.send(manifest, parallel)
        if layers != manifest.layers:
            content = encode(replace(manifest, layers=layers))
        digest = target.put_manifest(
            reference.tag or "latest", content, manifest.media_type or OCI_MANIFEST
        )
        store.catalog.placements.remember_location(
            reference.repository, [parse_digest(layer.digest) for layer in layers]
        )
    if not store.add_digest(record.id, reference.repository, digest):
        store.collect()  # the image was deleted meanwhile; only the lease kept its blobs
    return PushedImage(reference.tag or "latest", digest, len(content))


class _Push:
    """The blobs of one image."""

    def __init__(
        self,
        uploads: Uploads,
        record: ImageRecord,
        report: Report,
        cancel: Cancel,
        *,
        with_foreign: bool,
    ) -> None:
        self._uploads = uploads
        self._record = record
        self._report = report
        self._cancel = cancel
        self._with_foreign = with_foreign
        known = {name.partition("@")[2] for name in record.repo_digests}
        self._stays_as_it_is = record.manifest in known

    def send(self, manifest: Manifest, parallel: int) -> list[Descriptor]:
        """Send configuration and layers side by side; return what the layers are there."""
        lines = [Line(self._report, short(one.diff_id)) for one in self._record.layers]
        layers = list(zip(manifest.layers, self._record.layers, lines, strict=True))
        jobs: list[Callable[[], Descriptor]] = []
        for layer, stored, line in reversed(layers):  # what lies on top first, as in Docker's list
            line.say("Preparing")
            jobs.append(partial(self._layer, layer, stored, line))
        for line in lines[::-1][parallel:]:
            line.say("Waiting")
        jobs.append(partial(self._config, manifest.config))
        with ThreadPoolExecutor(parallel, "upload") as pool:
            try:
                *sent, _ = pool.map(lambda job: job(), jobs)
            except BaseException:
                self._cancel.set()  # the others would only go on for nothing
                raise
        return sent[::-1]

    def _config(self, config: Descriptor) -> Descriptor:
        silent = Line(lambda _: None, "")
        self._uploads.send(Blob(parse_digest(config.digest), config.size), silent)
        return config

    def _layer(self, layer: Descriptor, stored: StoredLayer, line: Line) -> Descriptor:
        if is_foreign(layer) and not self._with_foreign:
            line.say("Skipped foreign layer")
            return layer
        blob = Blob(stored.blob, stored.blob_size_bytes)
        if self._stays_as_it_is or layer.media_type not in _PACKED:
            self._uploads.send(blob, line)
            return layer
        packed = self._uploads.send_packed(stored.diff_id, blob, line)
        return replace(
            layer,
            media_type=_PACKED[layer.media_type],
            digest=packed.digest,
            size=packed.size_bytes,
        )
