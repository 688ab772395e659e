"""``docker commit``: what a container changed becomes a layer, and an image on top of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cais.content.store import Blob
from cais.errors import ExhaustedError
from cais.images.archive import make_manifest
from cais.images.layer_writer import pack_changes
from cais.images.layers import MAX_LAYERS, PackedLayer, unpack_layers
from cais.images.records import NewImage, format_time
from cais.images.tar_writer import in_blocks
from cais.snapshots.merged import open_snapshot
from cais.spec.digest import DiffId, ImageId
from cais.spec.image import OCI_LAYER, History, ImageConfig, RootFs, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.content.leases import Lease
    from cais.images.records import ImageRecord, StoredLayer
    from cais.images.store import ImageStore
    from cais.spec.image import ContainerConfig
    from cais.spec.reference import Reference


@dataclass(frozen=True, slots=True)
class Commit:
    """What is new about the image; ``config`` is what its containers start with."""

    config: ContainerConfig
    author: str = ""
    comment: str = ""
    created_by: str = ""
    created_ns: int | None = None
    """Now when None."""


def commit_snapshot(
    store: ImageStore, key: str, base: ImageId, commit: Commit, names: Sequence[Reference]
) -> ImageId:
    """Make an image of a snapshot that stands on the image ``base``. All of it or nothing.

    A snapshot without changes gives an image without a new layer, as with Docker.

    Raises:
        ImageNotFoundError: ``base`` has been deleted.
        InvalidArgumentError: a file no layer can hold.
        ExhaustedError: "no space left on device", too many layers.

    Blocks: for as long as reading, writing and syncing takes.

    """
    try:
        with store.content.leases.open() as lease:
            parent = _hold(store, lease, base)
            packed = [_packed(layer) for layer in parent.layers]
            new = _pack(store, lease, key)
            if new is not None:
                _check_depth(len(packed) + 1)
                packed.append(new)
            layers = unpack_layers(store, lease, packed)
            config = _configuration(parent.config, commit, layers, is_empty=new is None)
            return _register(store, lease, config, layers, base, names)
    except BaseException:
        store.collect()  # the lease is gone: nothing of the attempt is needed
        raise


def _hold(store: ImageStore, lease: Lease, base: ImageId) -> ImageRecord:
    """Keep every part of an image from being collected, and return it as it is then."""
    record = store.get(base)
    for layer in record.layers:
        lease.add(layer.chain_id)
        lease.add(layer.blob)
    return store.get(base)


def _check_depth(layers: int) -> None:
    if layers > MAX_LAYERS:
        raise ExhaustedError(f"max depth exceeded: {layers} layers, the limit is {MAX_LAYERS}")


def _packed(layer: StoredLayer) -> PackedLayer:
    return PackedLayer(layer.diff_id, Blob(layer.blob, layer.blob_size_bytes), layer.media_type)


def _pack(store: ImageStore, lease: Lease, key: str) -> PackedLayer | None:
    """Write the layer as a blob; None: nothing was changed."""
    with store.content.open_ingest() as ingest, open_snapshot(store.snapshotter, key) as pair:
        pieces = pack_changes(pair.now, pair.before, is_laid_over=pair.is_laid_over)
        for block in in_blocks(pieces):
            ingest.write(block)
        store.snapshotter.stat(key)  # removed meanwhile: what was read was not all of it
        if not ingest.size_bytes:
            return None
        blob = ingest.commit(lease)
    return PackedLayer(DiffId(blob.digest), blob, OCI_LAYER)


def _configuration(
    parent: ImageConfig, commit: Commit, layers: Sequence[StoredLayer], *, is_empty: bool
) -> ImageConfig:
    created = format_time(time.time_ns() if commit.created_ns is None else commit.created_ns)
    step = History(created, commit.created_by, commit.author, commit.comment, is_empty)
    return replace(
        parent,
        created=created,
        author=commit.author,
        comment=commit.comment,
        docker_version="",
        config=commit.config,
        rootfs=RootFs("layers", [layer.diff_id for layer in layers]),
        history=[*(parent.history or ()), step],
    )


def _register(
    store: ImageStore,
    lease: Lease,
    config: ImageConfig,
    layers: tuple[StoredLayer, ...],
    parent: ImageId,
    names: Sequence[Reference],
) -> ImageId:
    blob = store.content.write(encode(config), lease)
    manifest = store.content.write(encode(make_manifest(blob, layers)), lease)
    image = NewImage(ImageId(blob.digest), config, manifest.digest, layers, parent)
    store.register([(image, names)])
    return image.id
