"""A layer on its way in: an active snapshot, filled by a worker, then committed by its chain id."""

from __future__ import annotations

import contextlib
import os
import stat
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
    from cais.images.unpacker.pool import Loan
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
    loan: Loan,
    archive: BinaryIO,
    root: str,
    open_lowers: Callable[[], Sequence[str]] | None = None,
    *,
    is_verified: bool = False,
    report: Callable[[int], None] = lambda _: None,
) -> Unpacked:
    """Unpack one layer into a directory and end the loan; the worker is dead if that failed.

    Arguments, and what is raised, as ``Worker.unpack``.

    Blocks: for as long as decompressing and writing takes.
    """
    try:
        done = loan.worker.unpack(
            archive.fileno(),
            root,
            open_lowers,
            limits=Limits(),
            is_verified=is_verified,
            report=report,
        )
    except BaseException:
        loan.discard()
        raise
    loan.give_back()
    return done


def inherit_root(root: str, below: str) -> None:
    """Give a layer's root directory the owner and mode of the one below: the uppermost shows."""
    facts = os.stat(below)
    os.chown(root, facts.st_uid, facts.st_gid)
    os.chmod(root, stat.S_IMODE(facts.st_mode))


def commit_layer(
    store: ImageStore, key: str, chain: ChainId, parent: ChainId | None = None
) -> None:
    """Commit an unpacked layer; somebody else's commit of the same one is as good.

    Args:
        store: where to.
        key: of the snapshot.
        chain: its name.
        parent: what to put it on, if it was begun on nothing.

    """
    try:
        store.snapshotter.commit(key, chain, parent=parent)
    except SnapshotExistsError:
        return
