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
from cais.images.records import NewImage, platform_of
from cais.images.transfers import Line
from cais.spec.digest import DiffId, ImageId, parse_digest, short
from cais.spec.image import (
    INDEX_TYPES,
    LIMIT_BYTES,
    MANIFEST_TYPES,
    Index,
    InvalidImageError,
    Manifest,
    decode,
    decode_config,
)
from cais.spec.platform import Platform, host_platform
from cais.spec.reference import DEFAULT_TAG
from cais.spec.strict_json import loads

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cais.content.leases import Lease
    from cais.content.store import Blob
    from cais.images.downloads import Downloads, Wait
    from cais.images.store import ImageStore
    from cais.images.transfers import Report
    from cais.registry.cancel import Cancel
    from cais.registry.repository import FetchedManifest, Repository
    from cais.spec.digest import Digest
    from cais.spec.image import Descriptor, ImageConfig
    from cais.spec.reference import Reference

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
        report: Report,
        cancel: Cancel,
    ) -> None:
        self._store = store
        self._downloads = downloads
        self._source = source
        self._wanted = wanted
        self._platform = platform
        self._report = report
        self._cancel = cancel

    def run(self) -> PulledImage:
        """Bring the image in and name it.

        Blocks: for as long as the registry takes, and for unpacking and syncing.

        Raises:
            RegistryError: the registry refuses, as ``Repository``.
            DigestMismatchError, DataLossError: it sends something else than was named.
            NotFoundError: nothing for the platform.
            InvalidImageError: documents that are malformed or contradict each other.

        """
        label = label_of(self._wanted)
        top = self._source.get_manifest(label)
        self._report({"status": f"Pulling from {self._wanted.path}", "id": label})
        try:
            with self._store.content.leases.open() as lease:
                image_id, is_new = self._bring(self._choose(top, depth=0), lease)
                self._store.add_digest(image_id, self._wanted.repository, top.digest)
        except BaseException:
            self._store.collect()  # the lease is gone: nothing of the attempt is needed
            raise
        self._report({"status": f"Digest: {top.digest}"})
        return PulledImage(image_id, top.digest, is_new)

    def _choose(self, fetched: FetchedManifest, depth: int) -> FetchedManifest:
        """Follow indexes to the manifest for the platform."""
        kind = _kind_of(fetched)
        if kind in MANIFEST_TYPES:
            return fetched
        if kind not in INDEX_TYPES:
            raise InvalidImageError(f"manifest type {kind[:100]!r} is not supported")
        if depth >= _INDEX_DEPTH:
            raise InvalidImageError(f"index {fetched.digest}: nested more than {_INDEX_DEPTH}")
        index = decode(fetched.content, Index, f"index {fetched.digest}")
        chosen = _best(index.manifests or [], self._platform)
        if chosen is None:
            wanted = self._platform or host_platform()
            raise NotFoundError(f"no matching manifest for {wanted} in the manifest list entries")
        return self._choose(self._source.get_manifest(parse_digest(chosen.digest)), depth + 1)

    def _bring(self, fetched: FetchedManifest, lease: Lease) -> tuple[ImageId, bool]:
        manifest = decode(fetched.content, Manifest, f"manifest {fetched.digest}")
        config_blob, config = self._config(manifest.config, lease)
        diff_ids = diff_ids_of(config, len(manifest.layers))
        with contextlib.closing(self._arrivals(manifest.layers, diff_ids, lease)) as arrivals:
            layers = unpack_layers(self._store, lease, arrivals, self._report_unpacking)
        stored = self._store.content.write(fetched.content, lease)
        image = NewImage(ImageId(config_blob.digest), config, stored.digest, layers)
        names = [self._wanted] if self._wanted.digest is None else []
        before = self._store.catalog.find_name(self._wanted) if names else None
        self._store.register([(image, names)])
        return image.id, before != image.id

    def _config(self, descriptor: Descriptor, lease: Lease) -> tuple[Blob, ImageConfig]:
        digest = parse_digest(descriptor.digest)
        if not 0 <= descriptor.size <= LIMIT_BYTES:
            raise InvalidImageError(f"configuration {digest}: {descriptor.size} bytes")
        silent = Line(lambda _: None, short(digest))
        with self._downloads.join(digest, descriptor.size, self._source, lease, silent) as wait:
            blob = wait.blob(self._cancel)
        content = self._store.content.read(digest, LIMIT_BYTES)
        return blob, decode_config(content, f"configuration {digest}")

    def _arrivals(
        self, layers: Sequence[Descriptor], diff_ids: Sequence[DiffId], lease: Lease
    ) -> Generator[PackedLayer]:
        """Yield the layers, lowest first, each as soon as its blob is stored."""
        with contextlib.ExitStack() as stack:
            waits: list[tuple[Wait, Line]] = []
            for layer in layers:
                digest = parse_digest(layer.digest)
                line = Line(self._report, short(digest))
                wait = self._downloads.join(digest, layer.size, self._source, lease, line)
                line.say("Already exists" if wait.was_there else "Pulling fs layer")
                waits.append((stack.enter_context(wait), line))
            for (wait, line), diff_id in zip(waits, diff_ids, strict=True):
                blob = wait.blob(self._cancel)
                yield PackedLayer(diff_id, blob, self._media_type(blob.digest))
                if not wait.was_there:
                    line.say("Pull complete")

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


def label_of(reference: Reference) -> str:
    """Return what a registry is asked for: the digest if there is one, else the tag."""
    return reference.digest or reference.tag or DEFAULT_TAG


def platforms_of(fetched: FetchedManifest, source: Repository) -> list[dict[str, str]]:
    """Return the platforms behind a manifest or index, as the API words them."""
    if _kind_of(fetched) in INDEX_TYPES:
        index = decode(fetched.content, Index, f"index {fetched.digest}")
        given = [one.platform for one in index.manifests or [] if one.platform is not None]
        found = [Platform(one.os, one.architecture, one.variant) for one in given]
    else:
        manifest = decode(fetched.content, Manifest, f"manifest {fetched.digest}")
        content = source.read_blob(parse_digest(manifest.config.digest), LIMIT_BYTES)
        found = [platform_of(decode_config(content))]
    return [
        {
            "architecture": one.architecture,
            "os": one.os,
            **({"variant": one.variant} if one.variant else {}),
        }
        for one in found
    ]


def _kind_of(fetched: FetchedManifest) -> str:
    """Return a document's media type, on which header, member and form must agree (D2)."""
    document = loads(fetched.content, LIMIT_BYTES)
    if not isinstance(document, dict):
        raise InvalidImageError(f"manifest {fetched.digest}: not an object")
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    said = document.get("mediaType") or fetched.media_type
    if document.get("schemaVersion") == 1:
        raise InvalidImageError(
            "media type application/vnd.docker.distribution.manifest.v1+prettyjws is no longer "
            "supported: suggest the author to upgrade the image to the OCI format"
        )
    allowed = INDEX_TYPES if is_index else MANIFEST_TYPES
    is_clear = is_index is not is_manifest and said in allowed
    if not is_clear or (fetched.media_type in {*INDEX_TYPES, *MANIFEST_TYPES} - {said}):
        raise InvalidImageError(
            f"manifest {fetched.digest}: its type is ambiguous ({fetched.media_type[:100]!r}, "
            f"{str(said)[:100]!r})"
        )
    return str(said)


def _best(descriptors: Sequence[Descriptor], wanted: Platform | None) -> Descriptor | None:
    """Return the entry for a platform; attestations, whose platform is unknown, never match."""
    host = wanted or host_platform()
    fitting = []
    for descriptor in descriptors:
        given = descriptor.platform
        if given is None:
            continue
        platform = Platform(given.os, given.architecture, given.variant)
        if platform.provides(host) if wanted else platform.runs_on(host):
            fitting.append((platform.variant, descriptor))
    return max(fitting, key=lambda found: found[0])[1] if fitting else None
