"""Images as one tar file: ``docker load`` and ``docker save``.

Loading takes every member in, decides which images there are, unpacks their layers, and registers
all images in one transaction: a failure at any step leaves no image, no name, no layer and no blob.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cais.errors import NotFoundError
from cais.images.compression import Compression, Readable, detect, open_decompressed
from cais.images.layer_turns import LayerTurns
from cais.images.layers import MEDIA_TYPES, PackedLayer, diff_ids_of, unpack_layers
from cais.images.layouts import find_images
from cais.images.members import Members
from cais.images.records import NewImage, platform_of
from cais.images.saving import save
from cais.spec.digest import DiffId, ImageId, chain_ids, short
from cais.spec.image import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    InvalidImageError,
    Manifest,
    decode_config,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from cais.content.leases import Lease
    from cais.content.store import Blob
    from cais.images.layouts import ArchivedImage
    from cais.images.records import StoredLayer
    from cais.images.store import ImageStore
    from cais.spec.digest import Digest
    from cais.spec.image import ImageConfig
    from cais.spec.platform import Platform

__all__ = ["LoadedImage", "Readable", "load", "save"]


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One image of a loaded archive."""

    id: ImageId
    names: tuple[str, ...]
    """As shown; empty: the archive gave it no name."""

    def lines(self) -> tuple[str, ...]:
        """Return Docker's report: "Loaded image: x:latest" or "Loaded image ID: sha256:..."."""
        if not self.names:
            return (f"Loaded image ID: {self.id}",)
        return tuple(f"Loaded image: {name}" for name in self.names)


def load(
    source: Readable,
    store: ImageStore,
    *,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
    quiet: bool = False,
    platform: Platform | None = None,
) -> tuple[LoadedImage, ...]:
    """Load a docker-archive or an OCI layout, plain or compressed; all of it or nothing.

    Args:
        source: read to its end.
        progress: called with the JSON messages Docker streams: ``status``, ``progressDetail`` and
            ``id`` while layers are unpacked, then a ``stream`` line per name. May block; an
            exception it raises ends the loading.
        quiet: no messages about layers.
        platform: what every image has to provide; None: this machine's is preferred.

    Raises:
        NotFoundError: an image is for another platform than ``platform``.
        InvalidArgumentError: not such an archive, or one that breaks a limit.
        DigestMismatchError: content is not what its name says.
        ExhaustedError: "no space left on device", too many layers or members.

    Blocks: for as long as the source lasts, and for unpacking and syncing.

    """
    report = progress or (lambda _: None)
    try:
        with (
            store.unpacker.open(),
            store.content.leases.open() as lease,
            Members(store.content, lease) as members,
        ):
            members.spool(open_decompressed(source)[0])
            loader = _Loader(store, lease, members, None if quiet else progress)
            found = find_images(members, platform)
            if platform is not None:
                loader.require(found, platform)
            images = [(loader.load(image), image.names) for image in found]
            moved = store.register(images)
    except BaseException:
        store.collect()  # the lease is gone: nothing of the attempt is needed
        raise
    for name, old in moved:
        _say(
            report,
            f"The image {name} already exists, renaming the old one with ID {old} to empty string",
        )
    loaded = tuple(
        LoadedImage(image.id, tuple(name.familiar() for name in names)) for image, names in images
    )
    for entry in loaded:
        for line in entry.lines():
            _say(report, line)
    return loaded


class _Loader:
    """Brings in one image after the other, under one lease."""

    def __init__(
        self,
        store: ImageStore,
        lease: Lease,
        members: Members,
        progress: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._members = members
        self._progress = progress

    def require(self, images: Sequence[ArchivedImage], platform: Platform) -> None:
        """Refuse images for another platform. NotFoundError."""
        for image in images:
            if not platform_of(self._config(image)).provides(platform):
                name = image.names[0].familiar() if image.names else image.config[:200]
                raise NotFoundError(
                    f"image {name} doesn't provide the requested platform ({platform})"
                )

    def _config(self, image: ArchivedImage) -> ImageConfig:
        return decode_config(self._members.read(image.config), image.config[:200])

    def load(self, image: ArchivedImage) -> NewImage:
        config = self._config(image)
        diff_ids = diff_ids_of(config, len(image.layers))
        packed = [
            self._pack(diff_id, member)
            for diff_id, member in zip(diff_ids, image.layers, strict=True)
        ]
        with ThreadPoolExecutor(1, "blobs") as disk:  # it has them while they are unpacked
            committed = disk.map(self._members.commit, image.layers)
            try:
                layers = self._unpack(packed)
            finally:
                deque(committed, 0)  # raises what befell a blob, which its layer suffers from
        blob = self._members.commit(image.config)
        manifest = self._manifest(image, blob, layers)
        return NewImage(ImageId(blob.digest), config, manifest, layers)

    def _pack(self, diff_id: DiffId, member: str) -> PackedLayer:
        with self._members.open(member) as file:
            compression: Compression = detect(file.read(8))
        if compression not in MEDIA_TYPES:
            raise InvalidImageError(f"layer {member[:200]!r}: {compression} is not supported here")
        blob, media_type = self._members.describe(member), MEDIA_TYPES[compression]
        return PackedLayer(diff_id, blob, media_type, partial(self._members.open, member))

    def _unpack(self, packed: Sequence[PackedLayer]) -> tuple[StoredLayer, ...]:
        if self._progress is None:
            return unpack_layers(self._store, self._lease, packed)
        chains = chain_ids(layer.diff_id for layer in packed)
        known = self._store.catalog.layer_size
        new = [each for each, chain in zip(packed, chains, strict=True) if known(chain) is None]
        turns = LayerTurns(new, self._report_layer)
        layers = unpack_layers(self._store, self._lease, packed, turns.report, turns.complete)
        turns.finish()
        return layers

    def _report_layer(self, layer: PackedLayer, current: int) -> None:
        assert self._progress is not None
        detail = {"current": current, "total": layer.blob.size_bytes}
        message = {"status": "Loading layer", "progressDetail": detail}
        self._progress({**message, "id": short(layer.diff_id)})

    def _manifest(
        self, image: ArchivedImage, config: Blob, layers: Sequence[StoredLayer]
    ) -> Digest:
        if image.manifest is not None:
            return self._members.commit(image.manifest).digest
        document = encode(make_manifest(config, layers))
        return self._store.content.write(document, self._lease).digest


def make_manifest(config: Blob, layers: Sequence[StoredLayer]) -> Manifest:
    """Describe an image that came without a manifest; the same image always the same way."""
    return Manifest(
        schema_version=2,
        media_type=OCI_MANIFEST,
        config=Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=config.size_bytes),
        layers=[
            Descriptor(media_type=layer.media_type, digest=layer.blob, size=layer.blob_size_bytes)
            for layer in layers
        ],
    )


def _say(report: Callable[[Mapping[str, Any]], None], text: str) -> None:
    report({"stream": f"{text}\n"})
