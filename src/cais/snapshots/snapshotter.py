"""Snapshots: file system trees, each the difference to its parent. What every implementation does.

Vocabulary: an *active* snapshot has a ``key`` and can be written; ``commit`` turns it into a
*committed* one with a ``name``, which never changes again and can be the ``parent`` of others; a
*view* is active and read-only. Keys and names share one space.

A snapshotter gives mounts and never mounts. Making a layer of an image, then a container of it::

    snapshotter.prepare("import-1", None)            # or the chain id of the layer below
    apply_layer(stream, snapshotter.layer("import-1"))
    snapshotter.commit("import-1", "sha256:<chain id>")

    snapshotter.prepare("<container id>", "sha256:<chain id>")
    mounts = snapshotter.mounts("<container id>")    # engine writes them into the bundle
    snapshotter.remove("<container id>")

Methods may be called from any thread. They are durable: what was prepared, committed or removed
when a method returned is so after a power cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NewType, Protocol

from cais.errors import AlreadyExistsError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

SnapshotKey = NewType("SnapshotKey", str)

STACKING_DRIVERS = frozenset({"overlay2", "fuse-overlayfs"})
"""Those of whose directories ``docker inspect`` tells; for the others it has nothing to tell."""


class SnapshotNotFoundError(NotFoundError):
    """No snapshot has this key or name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"snapshot {key} does not exist")
        self.key = key


class SnapshotExistsError(AlreadyExistsError):
    """The key or name is taken."""

    def __init__(self, key: str) -> None:
        super().__init__(f"snapshot {key} already exists")
        self.key = key


class SnapshotInUseError(ConflictError):
    """The snapshot is the parent of another one."""

    def __init__(self, key: str) -> None:
        super().__init__(f"snapshot {key} has children")
        self.key = key


class SnapshotStateError(ConflictError):
    """The operation needs a snapshot of another kind."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount(2) to make, as containerd describes it.

    The options of an overlay are ``lowerdir=<uppermost>:...:<lowest>``, ``upperdir=...`` and
    ``workdir=...``; no path in them holds a colon, a comma or a backslash.
    """

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


class Kind(Enum):
    """What can be done with a snapshot."""

    ACTIVE = "active"
    VIEW = "view"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Facts about one snapshot."""

    key: SnapshotKey
    kind: Kind
    parent: SnapshotKey | None
    created_ns: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a snapshot alone, without its parents, takes on disk."""

    size_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Layer:
    """Where to write an active snapshot's difference without mounting it.

    ``path`` is the difference in overlayfs form (whiteouts are character devices 0:0, opaque
    directories carry ``trusted.overlay.opaque``); ``lowers`` are the parents' directories, the
    nearest first, to be read only. What has the name ``mark`` in any of their directories is a
    note of the driver's and no file; "" if it writes none.
    """

    path: str
    lowers: tuple[str, ...]
    mark: str = ""


class Snapshotter(Protocol):
    """Owner of snapshots. Every method raises SnapshotNotFoundError for an unknown key."""

    driver: str
    """What Docker calls this way of making roots."""

    def status(self) -> list[tuple[str, str]]:
        """Return what ``docker info`` says of the driver."""

    def prepare(self, key: str, parent: str | None) -> None:
        """Make an active snapshot on a committed one, or an empty one; cheap.

        Raises:
            SnapshotExistsError: the key is taken.
            SnapshotStateError: the parent is not committed.
            ExhaustedError: more layers than can be mounted.

        """

    def view(self, key: str, parent: str | None) -> None:
        """Make a read-only snapshot; raises as ``prepare``."""

    def mounts(self, key: str, *, ephemeral: bool = False) -> tuple[Mount, ...]:
        """Return what to mount for an active snapshot or a view; the directories exist then.

        Args:
            ephemeral: what is written need not survive a power cut, so nothing waits for the
                disk. Ask anew before every mount; there may be no other one at a time.

        Raises:
            SnapshotStateError: it is committed.

        """

    def planned_mounts(self, key: str) -> tuple[Mount, ...]:
        """Return what ``mounts`` would, for showing: the directories need not exist."""

    def places(self, key: str) -> tuple[str, ...]:
        """Return where the snapshot's own files lie; any of these may not be there."""

    def trim(self, key: str) -> None:
        """Free what an active snapshot that nobody has mounted can do without on disk.

        Nothing of its content changes, and ``mounts`` makes everything again.
        """

    def layer(self, key: str) -> Layer:
        """Return where an active snapshot's difference is; of a committed one, for reading.

        Also for reading, and as it is now, once ``mounts`` was called and until ``trim``.

        Blocks: where a root is a whole tree, for a comparison with its layers.
        """

    def commit(self, key: str, name: str, *, parent: str | None = None) -> None:
        """Turn an active snapshot into the committed ``name``; its data is synced first.

        Args:
            key: of the active one.
            name: to be known by.
            parent: put it on this committed one; it was prepared on none, at a time when this
                one was not there yet.

        Raises:
            SnapshotExistsError: the name is taken; the active snapshot stays.
            SnapshotStateError: ``key`` is not active, or has a parent that is to be another.

        Blocks: until everything written to the snapshot is on disk.

        """

    def remove(self, key: str) -> None:
        """Forget a snapshot; its space is freed in the background.

        Raises:
            SnapshotInUseError: it has children.

        """

    def stat(self, key: str) -> Snapshot:
        """Return the facts about a snapshot."""

    def usage(self, key: str) -> Usage:
        """Count what the snapshot alone takes. Blocks: walks the tree of an active one."""

    def close(self) -> None:
        """Wait for the trash to be emptied and let go of the store."""

    def walk(self) -> Iterator[Snapshot]:
        """Yield every snapshot, a parent before its children."""
