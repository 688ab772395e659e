"""From blobs to unpacked layers: each one a committed snapshot named by its chain id."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError
from cais.images.records import StoredLayer
from cais.images.store import IMPORT_KEY
from cais.images.unpack import apply_layer
from cais.snapshots.snapshotter import (
    SnapshotExistsError,
    SnapshotNotFoundError,
)
from cais.spec.digest import DiffId, DigestMismatchError, chain_ids, parse_digest
from cais.spec.image import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from cais.content.leases import Lease
    from cais.content.store import Blob
    from cais.images.compression import Compression
    from cais.images.store import ImageStore
    from cais.images.unpack import Applied
    from cais.spec.digest import ChainId
    from cais.spec.image import ImageConfig

    Progress = Callable[["PackedLayer", int], None]

MAX_LAYERS = 128
"""Docker's own limit."""

MEDIA_TYPES: dict[Compression, str] = {
    "": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}
"""Of the compressions a layer may be stored in."""

_PROGRESS_STEP_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer whose blob is in the content store, under a lease."""

    diff_id: DiffId
    blob: Blob
    media_type: str


def diff_ids_of(config: ImageConfig, count: int) -> list[DiffId]:
    """Return what a configuration says of the ``count`` layers of its manifest.

    Raises:
        InvalidImageError: they do not match.
        ExhaustedError: more than can be mounted, with Docker's text.

    """
    diff_ids = [DiffId(parse_digest(text)) for text in config.rootfs.diff_ids or ()]
    if len(diff_ids) != count:
        raise InvalidImageError(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {count}"
        )
    if count > MAX_LAYERS:
        raise ExhaustedError(f"max depth exceeded: {count} layers, the limit is {MAX_LAYERS}")
    return diff_ids


def unpack_layers(
    store: ImageStore,
    lease: Lease,
    packed: Iterable[PackedLayer],
    progress: Progress | None = None,
) -> tuple[StoredLayer, ...]:
    """Unpack what is not unpacked yet, lowest first; the lease protects every layer.

    Args:
        store: where to.
        lease: of the operation.
        packed: may be a generator that waits for each blob; at most ``MAX_LAYERS`` of them.
        progress: called with a layer and how many bytes of its blob were read.

    Blocks: for as long as decompressing, writing and syncing takes.

    Raises:
        DigestMismatchError: a layer is not what its diff id says.
        InvalidArgumentError, ExhaustedError, InternalError: as ``apply_layer``.

    """
    stored = []
    parent: ChainId | None = None
    packed, again = itertools.tee(packed)
    for layer, chain in zip(packed, chain_ids(p.diff_id for p in again), strict=True):
        lease.add(chain)
        size = _known_size(store, chain)
        if size is None:
            size = _unpack(store, lease, layer, chain, parent, progress)
        stored.append(
            StoredLayer(
                layer.diff_id,
                chain,
                layer.blob.digest,
                layer.blob.size_bytes,
                layer.media_type,
                size,
            )
        )
        parent = chain
    return tuple(stored)


@contextlib.contextmanager
def import_snapshot(store: ImageStore, lease: Lease, parent: ChainId | None) -> Iterator[str]:
    """Give the key of an active snapshot to unpack into; removed at the end unless committed."""
    key = f"{IMPORT_KEY}{uuid.uuid4().hex}"
    lease.add(key)
    store.snapshotter.prepare(key, parent)
    try:
        yield key
    finally:
        with contextlib.suppress(SnapshotNotFoundError):  # committed: it has its name now
            store.snapshotter.remove(key)


def commit_layer(store: ImageStore, key: str, chain: ChainId) -> None:
    """Commit an unpacked layer; somebody else's commit of the same one is as good."""
    try:
        store.snapshotter.commit(key, chain)
    except SnapshotExistsError:
        return


def _unpack(
    store: ImageStore,
    lease: Lease,
    layer: PackedLayer,
    chain: ChainId,
    parent: ChainId | None,
    progress: Progress | None,
) -> int:
    is_plain = layer.media_type == OCI_LAYER
    if is_plain and layer.blob.digest != layer.diff_id:
        raise DigestMismatchError("layer", layer.diff_id, layer.blob.digest)
    with import_snapshot(store, lease, parent) as key:
        with store.content.open_blob(layer.blob.digest) as blob:
            source = _Reported(blob, layer, progress) if progress else blob
            applied: Applied = apply_layer(
                source,
                store.snapshotter.layer(key),
                expected=layer.diff_id,
                is_verified=is_plain,
            )
        commit_layer(store, key, chain)
    return applied.size_bytes


def _known_size(store: ImageStore, chain: ChainId) -> int | None:
    """Return the size of a layer that is unpacked already."""
    try:
        store.snapshotter.stat(chain)
    except SnapshotNotFoundError:
        return None
    size = store.catalog.layer_size(chain)
    return store.snapshotter.usage(chain).size_bytes if size is None else size


class _Reported:
    """A blob that reports how far it was read."""

    def __init__(self, blob: BinaryIO, layer: PackedLayer, progress: Progress) -> None:
        self._blob = blob
        self._layer = layer
        self._progress = progress
        self._current = self._reported = 0

    def read(self, size: int) -> bytes:
        chunk = self._blob.read(size)
        self._current += len(chunk)
        is_end = not chunk and self._reported < self._current
        if is_end or self._current - self._reported >= _PROGRESS_STEP_BYTES:
            self._reported = self._current
            self._progress(self._layer, self._current)
        return chunk
