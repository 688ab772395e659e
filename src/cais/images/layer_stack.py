"""The layers of one image, unpacked side by side and committed one upon the other.

Each layer has a thread, which waits for its worker (``unpacker``), then for the layer below to be
committed, and commits it. A layer that must look at those below it (a whiteout, a link, a directory
its archive leaves out) is kept waiting at that entry until they are there.
"""

from __future__ import annotations

import functools
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from cais.images.layer_imports import commit_layer, fill, import_snapshot, inherit_root
from cais.images.records import StoredLayer
from cais.snapshots.snapshotter import SnapshotNotFoundError
from cais.spec.digest import DiffId, Digest, DigestMismatchError
from cais.spec.image import OCI_LAYER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.content.leases import Lease
    from cais.images.layers import PackedLayer
    from cais.images.store import ImageStore
    from cais.images.unpack import Unpacked
    from cais.images.unpacker.pool import Loan
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
        self._loans: list[Loan] = []
        self._stack = ExitStack()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "layer")

    def __enter__(self) -> Self:
        self._stack.enter_context(self._store.unpacker.open())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                for loan in self._loans:
                    loan.kill()
            self._threads.shutdown(cancel_futures=True)
        finally:
            for loan in self._loans:
                loan.discard()
            self._stack.close()

    def add(self, layer: PackedLayer, chain: ChainId) -> None:
        """Put a layer on top; it is unpacked unless it is there already.

        Blocks: while all workers are at work.

        Raises:
            DigestMismatchError: a plain layer is not what its diff id says.

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
            loan = self._store.unpacker.borrow()
            self._loans.append(loan)
            future = self._threads.submit(self._bring, layer, chain, below, loan)
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

    def _bring(self, layer: PackedLayer, chain: ChainId, below: _Part | None, loan: Loan) -> int:
        """Have a layer there, in its thread: by this worker, or by another pull's."""
        with self._store.unpacker.turn(chain):
            size = self._known_size(chain)
            if size is not None:
                loan.give_back()
            elif below is None or below.size.done():
                parent = below.chain if below else None
                with import_snapshot(self._store, self._lease, parent) as key:
                    size = self._unpack(layer, key, below, loan).size_bytes
                    commit_layer(self._store, key, chain)
            else:
                with import_snapshot(self._store, self._lease, None) as key:
                    size = self._unpack_apart(layer, key, below, loan)
                    commit_layer(self._store, key, chain, below.chain)
        self._complete(layer)
        return size

    def _unpack_apart(self, layer: PackedLayer, key: str, below: _Part, loan: Loan) -> int:
        """Unpack while the layer below is not there; it is afterwards."""
        done = self._unpack(layer, key, below, loan)
        lowers = self._lowers(below)
        if not done.has_root:
            inherit_root(self._store.snapshotter.layer(key).path, lowers[0])
        return done.size_bytes

    def _unpack(self, layer: PackedLayer, key: str, below: _Part | None, loan: Loan) -> Unpacked:
        is_plain = layer.media_type == OCI_LAYER
        with (
            layer.open() if layer.open else self._store.content.open_blob(layer.blob.digest) as blob
        ):
            done = fill(
                loan,
                blob,
                self._store.snapshotter.layer(key).path,
                functools.partial(self._lowers, below) if below else None,
                is_verified=is_plain,
                report=functools.partial(self._report, layer),
            )
        if not is_plain and (actual := _digest(done.sha256)) != layer.diff_id:
            raise DigestMismatchError("layer", layer.diff_id, actual)
        return done

    def _lowers(self, below: _Part) -> Sequence[str]:
        """Return the directories below a layer, nearest first, once they are there."""
        below.size.result()
        nearest = self._store.snapshotter.layer(below.chain)
        return (nearest.path, *nearest.lowers)

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
