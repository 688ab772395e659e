"""The layers of one image, unpacked side by side and committed one upon the other.

Each layer has a thread, which waits for its worker (``unpacker``), then for the layer below to be
committed, and commits it. A layer that must look at those below it (a whiteout, a link, a directory
its archive leaves out) is kept waiting at that entry until they are there.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from cais.images.layer_imports import commit_layer, fill, import_snapshot
from cais.images.records import StoredLayer
from cais.snapshots.snapshotter import SnapshotNotFoundError
from cais.spec.digest import DiffId, Digest, DigestMismatchError
from cais.spec.image import OCI_LAYER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.content.leases import Lease
    from cais.images.layers import PackedLayer
    from cais.images.store import ImageStore
    from cais.images.unpacker.worker_handle import Worker
    from cais.spec.digest import ChainId

_MOST_THREADS = 128


class _Part(NamedTuple):
    """A layer of the stack: its thread's result is the size of its files."""

    layer: PackedLayer
    chain: ChainId
    size: Future[int]


class LayerStack:
    """Built from below; used with ``with``, whose end leaves no thread and no worker.

    Args:
        store: where to.
        lease: of the operation; protects every layer.
        report: told a layer and how many bytes of its blob were read; by several threads.
        complete: told each layer that was unpacked, once it is committed, lowest first.

    """

    def __init__(
        self,
        store: ImageStore,
        lease: Lease,
        report: Callable[[PackedLayer, int], None],
        complete: Callable[[PackedLayer], None],
    ) -> None:
        self._store = store
        self._lease = lease
        self._report = report
        self._complete = complete
        self._parts: list[_Part] = []
        self._workers: list[Worker] = []
        self._stack = ExitStack()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "layer")

    def __enter__(self) -> Self:
        self._stack.enter_context(self._store.unpacker.open())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                for worker in self._workers:
                    worker.kill()
            self._threads.shutdown(cancel_futures=True)
        finally:
            self._stack.close()

    def add(self, layer: PackedLayer, chain: ChainId) -> None:
        """Put a layer on top; it is unpacked unless it is there already.

        Blocks: while all workers are at work, and where layers must come one after the other.

        Raises:
            DigestMismatchError: a plain layer is not what its diff id says.
            CaisError: what befell a layer below.

        """
        self._lease.add(chain)
        if layer.media_type == OCI_LAYER and layer.blob.digest != layer.diff_id:
            raise DigestMismatchError("layer", layer.diff_id, layer.blob.digest)
        below = self._parts[-1] if self._parts else None
        size = self._known_size(chain)
        if size is not None:
            future: Future[int] = Future()
            future.set_result(size)
        else:
            if below is not None:
                below.size.result()
            worker = self._store.unpacker.borrow()
            self._workers.append(worker)
            future = self._threads.submit(self._bring, layer, chain, below, worker)
        self._parts.append(_Part(layer, chain, future))

    def finish(self) -> tuple[StoredLayer, ...]:
        """Return the layers once all are committed; raises what befell the lowest that failed."""
        return tuple(
            StoredLayer(
                layer.diff_id,
                chain,
                layer.blob.digest,
                layer.blob.size_bytes,
                layer.media_type,
                size.result(),
            )
            for layer, chain, size in self._parts
        )

    def _bring(
        self, layer: PackedLayer, chain: ChainId, below: _Part | None, worker: Worker
    ) -> int:
        parent = below.chain if below else None
        with import_snapshot(self._store, self._lease, parent) as key:
            target = self._store.snapshotter.layer(key)
            is_plain = layer.media_type == OCI_LAYER

            def open_lowers() -> Sequence[str]:
                return target.lowers

            with self._store.content.open_blob(layer.blob.digest) as blob:
                done = fill(
                    self._store.unpacker,
                    worker,
                    blob,
                    target.path,
                    open_lowers if target.lowers else None,
                    is_verified=is_plain,
                    report=lambda current: self._report(layer, current),
                )
            if not is_plain and (actual := _digest(done.sha256)) != layer.diff_id:
                raise DigestMismatchError("layer", layer.diff_id, actual)
            commit_layer(self._store, key, chain)
        self._complete(layer)
        return done.size_bytes

    def _known_size(self, chain: ChainId) -> int | None:
        """Return the size of a layer that is unpacked already."""
        try:
            self._store.snapshotter.stat(chain)
        except SnapshotNotFoundError:
            return None
        size = self._store.catalog.layer_size(chain)
        return self._store.snapshotter.usage(chain).size_bytes if size is None else size


def _digest(sha256: str) -> DiffId:
    return DiffId(Digest(f"sha256:{sha256}"))
