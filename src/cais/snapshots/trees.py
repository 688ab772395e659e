"""Snapshots whose roots are whole trees, for where directories cannot be stacked.

On disk, besides what ``differences`` has::

    trees/<number>/                  the root of a container that was started
    trees/<number>.made              its time of last change is when that tree was complete
    trees/.<random>/                 one that is being made

Layers are differences here, too. The root of a container is made of them when it is mounted for
the first time; what the container writes is found by comparing (``changes``). When it has ended,
``trim`` turns the root back into a difference, which is all that a container that does not run
takes. A snapshot that has a tree is what the tree holds: its difference is only what ``layer``
wrote at the last call.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from abc import abstractmethod
from typing import TYPE_CHECKING

from cais.linux.filesystem import sync_filesystem
from cais.snapshots.changes import ChangedTree
from cais.snapshots.differences import MADE, DifferenceSnapshotter, count
from cais.snapshots.inodes import copy_attributes
from cais.snapshots.merged import open_stack
from cais.snapshots.snapshotter import Kind, Mount, Usage
from cais.snapshots.tree_copy import copy_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cais.snapshots.rows import Row

_READING_S = 3600.0
"""A difference that was written anew is kept for its readers that long."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeSnapshotter(DifferenceSnapshotter):
    """A driver says how a tree is made of differences."""

    def __init__(self, root: Path) -> None:
        """Open the store, as ``DifferenceSnapshotter``."""
        self._naming = threading.Lock()
        self._locks: dict[int, threading.RLock] = {}  # of one snapshot's tree and difference
        self._retired: list[tuple[float, str]] = []  # when, and its name
        super().__init__(root)

    @abstractmethod
    def _make_tree(self, path: str, row: Row) -> None:
        """Make at ``path`` the root of a snapshot that has layers; ``fill`` does it by copying."""

    def _joined(self, row: Row) -> Mount:
        access = "rw" if row.kind is Kind.ACTIVE else "ro"
        return Mount("bind", self._tree(row.number), options=(access, "rbind"))

    def _make_joined(self, row: Row, *, ephemeral: bool) -> Mount:
        path = self._tree(row.number)
        with self._locked(row):
            if not os.path.isdir(path):
                complete = self._new_tree()
                with self._exhausted(path):
                    self._make_tree(complete, row)
                    self._finish_tree(row, complete, is_durable=not ephemeral)
        return self._joined(row)

    def _finish_tree(self, row: Row, complete: str, *, is_durable: bool) -> None:
        """Give a tree its name; the difference it was made with goes."""
        path, own = self._tree(row.number), self._difference(row.number)
        if is_durable:  # or a power cut keeps the names of files and not what is in them
            sync_filesystem(self._fd)
        self._note_time(path + MADE, is_copy=not os.path.isdir(own))
        self._publish(complete, path)
        if is_durable:
            with _opened(os.path.dirname(path)) as fd:
                os.fsync(fd)
        self._trash.take(self._fd, str(row.number))

    def _note_time(self, path: str, *, is_copy: bool) -> None:
        """Note that a tree is complete now, or that any file may differ from the layers."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path, None if is_copy else (0, 0))

    def _refresh(self, row: Row) -> None:
        """Write the difference of a snapshot that has a tree."""
        with self._locked(row), self._changed(row) as changed:
            if changed is None:
                return
            complete = f"{self._root}/{uuid.uuid4().hex}"
            with self._exhausted(complete):
                os.mkdir(complete, 0o700)
                with _opened(complete) as fd:
                    changed.write(fd)
                self._retire(row.number)
                self._publish(complete, self._difference(row.number))

    def _retire(self, number: int) -> None:
        """Put a difference aside: somebody may be reading what ``layer`` gave."""
        aside = uuid.uuid4().hex
        with self._naming, contextlib.suppress(FileNotFoundError):
            os.rename(self._difference(number), f"{self._root}/{aside}")
            self._retired.append((time.monotonic(), aside))
            while self._retired and self._retired[0][0] + _READING_S < time.monotonic():
                self._trash.take(self._fd, self._retired.pop(0)[1])

    def close(self) -> None:
        """See ``Snapshotter.close``."""
        while self._retired:
            self._trash.take(self._fd, self._retired.pop()[1])
        super().close()

    def remove(self, key: str) -> None:
        """See ``Snapshotter.remove``."""
        number = self._rows.get(key).number
        super().remove(key)
        self._locks.pop(number, None)

    def _trim(self, row: Row) -> None:
        with self._locked(row):
            if not os.path.isdir(self._tree(row.number)):
                return
            self._refresh(row)
            sync_filesystem(self._fd)
            self._discard_at("trees", row.number)
            self._trim_difference(row)

    def _trim_difference(self, row: Row) -> None:
        path = self._difference(row.number)
        with contextlib.suppress(OSError):  # not empty: then it stays
            if self._has_root_attributes(row.parent, path):
                os.rmdir(path)

    def _count(self, row: Row) -> Usage:
        with self._locked(row), self._changed(row) as changed:
            if changed is None:
                return super()._count(row)
            return count(change.status for change in changed.changes() if change.status)

    @contextlib.contextmanager
    def _changed(self, row: Row) -> Iterator[ChangedTree | None]:
        """Give the tree of an active snapshot beside its layers; None: it has none."""
        path = self._tree(row.number)
        if row.kind is not Kind.ACTIVE or not os.path.isdir(path):
            yield None
            return
        since_ns = os.stat(path + MADE).st_mtime_ns
        lowers = self._rows.lineage(row.number)[1:]
        with open_stack(list(map(self._difference, lowers))) as tree, _opened(path) as fd:
            yield ChangedTree(tree, fd, since_ns)

    def _locked(self, row: Row) -> threading.RLock:
        """Return what keeps a tree from going while it is compared."""
        return self._locks.setdefault(row.number, threading.RLock())

    def _fill(self, path: str, numbers: Sequence[int]) -> None:
        """Copy what these differences, the uppermost first, show into an empty directory."""
        with open_stack(list(map(self._difference, numbers))) as tree, _opened(path) as fd:
            top = tree.root()
            copy_tree(tree, top, fd)
            with tree.opened(top) as sources:
                copy_attributes(sources[0], fd, top.status)

    def _sources(self, row: Row) -> list[int]:
        """Return the differences a root is made of: the snapshot's own if it has one."""
        own, *lowers = self._rows.lineage(row.number)
        return [own, *lowers] if os.path.isdir(self._difference(own)) else lowers

    def _tree(self, number: int) -> str:
        return f"{self._root}/trees/{number}"

    def _new_tree(self) -> str:
        return f"{self._root}/trees/.{uuid.uuid4().hex}"

    def _keeps(self, place: str, row: Row) -> bool:
        return place == "trees" and row.kind is not Kind.COMMITTED


class NativeCopySnapshotter(TreeSnapshotter):
    """Every started container has a copy of its own; extents are shared where that is possible."""

    driver = "vfs"

    def _make_tree(self, path: str, row: Row) -> None:
        os.mkdir(path, 0o700)
        self._fill(path, self._sources(row))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
