"""Pull an image from a registry into the store.

A tag or digest leads to a manifest, perhaps through an index of platforms; the manifest to the
configuration and the layers, which are downloaded side by side and unpacked, lowest first, as they
arrive. Everything is verified against the digest that named it before it is used, and a failure at
any step leaves no image, no name and no blob.

Spec: OCI image-spec 1.1 (image-index.md, manifest.md); distribution-spec 1.1, "Pull".
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import NotFoundError
from cais.images.compression import detect
from cais.images.layers import MEDIA_TYPES, PackedLayer, diff_ids_of, unpack_layers
from cais.images.offers import best, kind_of
from cais.images.records import NewImage
from cais.images.transfers import Line
from cais.registry.errors import UnknownToRegistryError
from cais.snapshots.snapshotter import SnapshotNotFoundError
from cais.spec.digest import DiffId, ImageId, parse_digest, short
from cais.spec.image import (
    LIMIT_BYTES,
    MANIFEST_TYPES,
    Index,
    InvalidImageError,
    Manifest,
    decode,
    decode_config,
    is_foreign,
)
from cais.spec.platform import host_platform
from cais.spec.reference import DEFAULT_TAG, Reference

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cais.content.leases import Lease
    from cais.content.store import Blob
    from cais.images.catalog_view import ImageRow
    from cais.images.downloads import Downloads, Wait
    from cais.images.policy import Policy
    from cais.images.store import ImageStore
    from cais.images.transfers import Report
    from cais.registry.cancel import Cancel
    from cais.registry.repository import FetchedManifest, Repository
    from cais.spec.digest import Digest
    from cais.spec.image import Descriptor, ImageConfig
    from cais.spec.platform import Platform

_INDEX_DEPTH = 2
_HEAD_BYTES = 8


@dataclass(frozen=True, slots=True)
class PulledImage:
    """What a pull brought."""

    id: ImageId
    digest: Digest
    """Of the manifest or index the reference named."""

    is_new: bool
    """Whether the name meant something else before."""


class Pull:
    """One pull.

    Args:
        store: where the image goes.
        downloads: of the store's content.
        source: the repository to ask.
        wanted: the name the image gets; a digest in it must be what the registry sends.
        platform: the one to choose of several; None: this machine's.
        policy: has to allow it.
        report: told Docker's messages.
        cancel: ends it.

    """

    def __init__(
        self,
        store: ImageStore,
        downloads: Downloads,
        source: Repository,
        wanted: Reference,
        *,
        platform: Platform | None,
        policy: Policy,
        report: Report,
        cancel: Cancel,
    ) -> None:
        self._store = store
        self._downloads = downloads
        self._source = source
        self._wanted = wanted
        self._platform = platform
        self._policy = policy
        self._report = report
        self._cancel = cancel

    def run(self) -> PulledImage:
        """Bring the image in and name it.

        Blocks: for as long as the registry takes, and for unpacking and syncing.

        Raises:
            RegistryError: the registry refuses, as ``Repository``.
            DigestMismatchError, DataLossError: it sends something else than was named.
            NotFoundError: nothing for the platform.
            RefusedByPolicyError: before anything of the image was fetched.
            InvalidImageError: documents that are malformed or contradict each other.

        """
        top = self._source.get_manifest(label_of(self._wanted))
        self._policy.check(self._wanted, top, self._source)
        shown = str(self._wanted) if self._wanted.digest else self._wanted.tag or DEFAULT_TAG
        self._report({"status": f"Pulling from {self._wanted.path}", "id": shown})
        try:
            with self._store.content.leases.open() as lease:
                chosen = self._choose(top, depth=0)
                image_id, is_new = self._bring(chosen, top.digest, lease)
        except BaseException:
            self._store.collect()  # the lease is gone: nothing of the attempt is needed
            raise
        self._report({"status": f"Digest: {top.digest}"})
        return PulledImage(image_id, top.digest, is_new)

    def _choose(self, fetched: FetchedManifest, depth: int) -> FetchedManifest:
        """Follow indexes to the manifest for the platform."""
        kind = kind_of(fetched, self._wanted)
        if kind in MANIFEST_TYPES:
            return fetched
        if depth >= _INDEX_DEPTH:
            raise InvalidImageError(f"index {fetched.digest}: nested more than {_INDEX_DEPTH}")
        index = decode(fetched.content, Index, f"index {fetched.digest}")
        chosen = best(index.manifests or [], self._platform)
        if chosen is None:
            wanted = self._platform or host_platform()
            raise NotFoundError(f"no matching manifest for {wanted} in the manifest list entries")
        return self._choose(self._source.get_manifest(parse_digest(chosen.digest)), depth + 1)

    def _bring(
        self, fetched: FetchedManifest, digest: Digest, lease: Lease
    ) -> tuple[ImageId, bool]:
        """Bring the image in, under the digest that was named and the tag, if that is wanted."""
        manifest = decode(fetched.content, Manifest, f"manifest {fetched.digest}")
        image = self._kept(manifest, lease) or self._new(fetched, manifest, lease)
        before = self._store.catalog.find_name(self._wanted)
        names = [Reference(self._wanted.domain, self._wanted.path, None, digest)]
        if self._wanted.digest is None:
            names.append(self._wanted)
        self._store.register([(image, names)])
        self._store.catalog.placements.remember_location(
            self._wanted.repository, [parse_digest(layer.digest) for layer in manifest.layers]
        )
        return image.id, before != image.id

    def _kept(self, manifest: Manifest, lease: Lease) -> NewImage | None:
        """Return the image if it is here, and whole: its configuration names all there is to it."""
        image_id = ImageId(parse_digest(manifest.config.digest))
        row = self._store.catalog.find(image_id)
        if row is None:
            return None
        for layer in row.layers:
            lease.add(layer.blob)
            lease.add(layer.chain_id)
        lease.add(image_id)
        lease.add(row.manifest)
        if self._store.catalog.find(image_id) is None or not self._is_whole(row):
            return None  # deleted before it was leased; or to be healed
        return NewImage(image_id, self._store.get(image_id).config, row.manifest, row.layers)

    def _is_whole(self, row: ImageRow) -> bool:
        try:
            for layer in row.layers:
                self._store.snapshotter.stat(layer.chain_id)
        except SnapshotNotFoundError:
            return False
        return self._store.has_blobs(row)

    def _new(self, fetched: FetchedManifest, manifest: Manifest, lease: Lease) -> NewImage:
        config_blob, config = self._config(manifest.config, lease)
        diff_ids = diff_ids_of(config, len(manifest.layers))
        with contextlib.closing(self._arrivals(manifest.layers, diff_ids, lease)) as arrivals:
            layers = unpack_layers(
                self._store, lease, arrivals, self._report_unpacking, self._report_unpacked
            )
        stored = self._store.content.write(fetched.content, lease)
        return NewImage(ImageId(config_blob.digest), config, stored.digest, layers)

    def _config(self, descriptor: Descriptor, lease: Lease) -> tuple[Blob, ImageConfig]:
        digest = parse_digest(descriptor.digest)
        if not 0 <= descriptor.size <= LIMIT_BYTES:
            raise InvalidImageError(f"configuration {digest}: {descriptor.size} bytes")
        silent = Line(lambda _: None, short(digest))
        with self._downloads.join(
            digest, descriptor.size, self._source, lease, silent, is_document=True
        ) as wait:
            blob = wait.blob(self._cancel)
        content = self._store.content.read(digest, LIMIT_BYTES)
        return blob, decode_config(content, f"configuration {digest}")

    def _arrivals(
        self, layers: Sequence[Descriptor], diff_ids: Sequence[DiffId], lease: Lease
    ) -> Generator[PackedLayer]:
        """Yield the layers, lowest first, each as soon as its blob is stored."""
        with contextlib.ExitStack() as stack:
            waits: list[Wait] = []
            for layer in layers:
                digest = parse_digest(layer.digest)
                line = Line(self._report, short(digest))
                wait = self._downloads.join(digest, layer.size, self._source, lease, line)
                waits.append(stack.enter_context(wait))
            for wait, layer, diff_id in zip(waits, layers, diff_ids, strict=True):
                blob = self._arrived(wait, layer)
                yield PackedLayer(diff_id, blob, self._media_type(blob.digest))

    def _arrived(self, wait: Wait, layer: Descriptor) -> Blob:
        """Return a layer's blob; the URLs of a foreign one are never asked, as by dockerd."""
        try:
            return wait.blob(self._cancel)
        except UnknownToRegistryError as exc:
            if is_foreign(layer):
                raise NotFoundError(
                    f"layer {layer.digest} is foreign: the registry does not have it, and the "
                    "URLs in a manifest are not followed"
                ) from exc
            raise

    def _media_type(self, digest: Digest) -> str:
        """Return what a layer is by its first bytes, whatever its manifest calls it."""
        with self._store.content.open_blob(digest) as blob:
            compression = detect(blob.read(_HEAD_BYTES))
        if compression not in MEDIA_TYPES:
            raise InvalidImageError(f"layer {digest}: {compression} is not supported here")
        return MEDIA_TYPES[compression]

    def _report_unpacking(self, layer: PackedLayer, current: int) -> None:
        line = Line(self._report, short(layer.blob.digest))
        line.count("Extracting", current, layer.blob.size_bytes)

    def _report_unpacked(self, layer: PackedLayer) -> None:
        Line(self._report, short(layer.blob.digest)).say("Pull complete")


def label_of(reference: Reference) -> str:
    """Return what a registry is asked for: the digest if there is one, else the tag."""
    return reference.digest or reference.tag or DEFAULT_TAG
