"""From blobs to unpacked layers: each one a committed snapshot named by its chain id."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError
from cais.images.layer_stack import LayerStack
from cais.snapshots import rows
from cais.spec.digest import DiffId, chain_ids, parse_digest
from cais.spec.image import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, InvalidImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from cais.content.leases import Lease
    from cais.content.store import Blob
    from cais.images.compression import Compression
    from cais.images.records import StoredLayer
    from cais.images.store import ImageStore
    from cais.spec.image import ImageConfig

MAX_LAYERS = rows.MAX_LAYERS
"""Of an image: as many as can be mounted. Docker's own limit is 128."""

MEDIA_TYPES: dict[Compression, str] = {
    "": OCI_LAYER,
    "gzip": OCI_LAYER_GZIP,
    "zstd": OCI_LAYER_ZSTD,
}
"""Of the compressions a layer may be stored in."""


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer whose blob is in the content store, or on its way there, under a lease."""

    diff_id: DiffId
    blob: Blob
    media_type: str
    open: Callable[[], BinaryIO] | None = None
    """Opens the blob while it is on its way; None: it is there."""


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
    progress: Callable[[PackedLayer, int], None] | None = None,
    completed: Callable[[PackedLayer], None] | None = None,
) -> tuple[StoredLayer, ...]:
    """Unpack what is not unpacked yet; the lease protects every layer.

    Args:
        store: where to.
        lease: of the operation.
        packed: may be a generator that waits for each blob; at most ``MAX_LAYERS`` of them.
        progress: called with a layer and how many bytes of its blob were read; by any thread.
        completed: called with each layer that was unpacked and is committed, lowest first.

    Blocks: for as long as decompressing, writing and syncing takes.

    Raises:
        DigestMismatchError: a layer is not what its diff id says.
        InvalidArgumentError, ExhaustedError, InternalError: as ``unpack``.
        InternalError, DeadlineError: a worker died, or stood still.

    """
    with LayerStack(store, lease, progress or _ignore, completed or _ignore) as stack:
        packed, again = itertools.tee(packed)
        for layer, chain in zip(packed, chain_ids(p.diff_id for p in again), strict=True):
            stack.add(layer, chain)
        return stack.finish()


def _ignore(*_: object) -> None:
    pass
