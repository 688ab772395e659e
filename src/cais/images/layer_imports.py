"""A layer on its way in: an active snapshot, filled by a worker, then committed by its chain id."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from cais.images.store import IMPORT_KEY
from cais.images.unpack import Limits
from cais.snapshots.snapshotter import SnapshotExistsError, SnapshotNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from cais.content.leases import Lease
    from cais.images.store import ImageStore
    from cais.images.unpack import Unpacked
    from cais.images.unpacker.pool import Unpacker
    from cais.images.unpacker.worker_handle import Worker
    from cais.spec.digest import ChainId


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


def fill(
    unpacker: Unpacker,
    worker: Worker,
    archive: BinaryIO,
    root: str,
    open_lowers: Callable[[], Sequence[str]] | None = None,
    *,
    is_verified: bool = False,
    report: Callable[[int], None] = lambda _: None,
) -> Unpacked:
    """Unpack one layer into a directory and return the worker; it is dead if that failed.

    Arguments, and what is raised, as ``Worker.unpack``.

    Blocks: for as long as decompressing and writing takes.
    """
    try:
        done = worker.unpack(
            archive.fileno(),
            root,
            open_lowers,
            limits=Limits(),
            is_verified=is_verified,
            report=report,
        )
    except BaseException:
        unpacker.discard(worker)
        raise
    unpacker.give_back(worker)
    return done


def commit_layer(store: ImageStore, key: str, chain: ChainId) -> None:
    """Commit an unpacked layer; somebody else's commit of the same one is as good."""
    try:
        store.snapshotter.commit(key, chain)
    except SnapshotExistsError:
        return
