"""What a stack of layer directories shows, read without mounting anything.

Of each name the uppermost layer counts; a whiteout (character device 0:0) hides what is below it,
and directories add up unless one of them is opaque. A stack of one is a plain tree. Nothing is
followed but the symbolic links of a path given to ``find``, which stay in the tree, so the layers
may be written by somebody hostile meanwhile: what vanishes between two looks is an OSError.

Spec: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import InternalError, InvalidArgumentError
from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_at
from cais.linux.whiteouts import is_opaque, is_whiteout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cais.snapshots.snapshotter import Snapshotter

_LINK_LIMIT = 40
_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


@dataclass(frozen=True, slots=True)
class Entry:
    """A name of the merged tree: where it is, in which layers (uppermost first), and what."""

    path: str
    """``.`` is the root; everything else begins with ``./``."""

    layers: tuple[int, ...]
    status: os.stat_result
    """Of the uppermost layer, as lstat(2) gives it."""

    @property
    def is_directory(self) -> bool:
        """Whether names can be below it."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def name(self) -> str:
        """The last component."""
        return self.path.rpartition("/")[2]


@contextlib.contextmanager
def open_stack(directories: Sequence[str], mark: str = "") -> Iterator[MergedTree]:
    """Give the ``MergedTree`` of ``directories``, the uppermost first and at least one."""
    with contextlib.ExitStack() as stack:
        fds = []
        for path in directories:
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        yield MergedTree(fds, mark)


@contextlib.contextmanager
def open_snapshot(snapshotter: Snapshotter, key: str) -> Iterator[Pair]:
    """Open a snapshot's tree and its parent's for reading; nothing is mounted.

    Raises:
        SnapshotNotFoundError: there is none.
        InternalError: a file of it cannot be read.

    """
    layer = snapshotter.layer(key)
    stack = [layer.path, *layer.lowers]
    parent = snapshotter.stat(key).parent
    with contextlib.ExitStack() as opened:
        now = opened.enter_context(open_stack(stack, layer.mark))
        before, below = None, list[str]()
        if parent is not None:
            lower = snapshotter.layer(parent)
            below = [lower.path, *lower.lowers]
            before = opened.enter_context(open_stack(below, lower.mark))
        try:
            yield Pair(now, before, is_laid_over=stack[1:] == below)
        except OSError as exc:  # of the block: what fails there is the reading
            raise InternalError(f"read snapshot {key}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Pair:
    """A snapshot's tree and the one it was made on, open; ``before`` is None if there is none."""

    now: MergedTree
    before: MergedTree | None
    is_laid_over: bool
    """``now`` is ``before`` with one directory laid over it."""


class MergedTree:
    """Read-only view of layers laid over each other.

    Args:
        layer_fds: directories, the uppermost first, at least one. Borrowed.
        mark: as in ``Layer``.

    """

    def __init__(self, layer_fds: Sequence[int], mark: str = "") -> None:
        self._layer_fds = layer_fds
        self._mark = mark

    def root(self) -> Entry:
        """Return the top of the tree."""
        return Entry(".", tuple(range(len(self._layer_fds))), os.fstat(self._layer_fds[0]))

    def find(self, path: str) -> Entry | None:
        """Return what is at ``path``, symbolic links resolved inside the tree; None: nothing.

        Raises:
            InvalidArgumentError: the links run in a circle.

        """
        pending = [part for part in reversed(path.split("/")) if part not in {"", "."}]
        trail = [self.root()]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                trail = trail[:-1] or trail  # above the root is the root
                continue
            entry = self.lookup(trail[-1], part)
            if entry is None:
                return None
            if not stat.S_ISLNK(entry.status.st_mode):
                trail.append(entry)
                continue
            if (links := links + 1) > _LINK_LIMIT:
                raise InvalidArgumentError(f"too many symbolic links in the image's {path}")
            destination = self.read_link(entry)
            if destination.startswith("/"):
                del trail[1:]
            pending += [part for part in reversed(destination.split("/")) if part not in {"", "."}]
        return trail[-1]

    def lookup(self, directory: Entry, name: str) -> Entry | None:
        """Return the entry ``name`` of a directory, not following it; None: there is none."""
        if not directory.is_directory:
            return None
        with self.opened(directory) as parent_fds:
            return self._lookup(directory, parent_fds, name)

    def children(self, directory: Entry) -> list[Entry]:
        """Return the entries of a directory, sorted by their names' bytes."""
        with self.opened(directory) as parent_fds:
            names = {name for fd in parent_fds for name in os.listdir(fd)}
            found = (
                self._lookup(directory, parent_fds, name) for name in sorted(names, key=os.fsencode)
            )
            return [entry for entry in found if entry is not None]

    def written(self, directory: Entry) -> dict[str, Entry | None]:
        """Return the names that the directory's uppermost layer has; None: it hides that name."""
        with self.opened(directory) as parent_fds:
            names = os.listdir(parent_fds[0])
            return {name: self._lookup(directory, parent_fds, name) for name in names}

    def select(self, directory: Entry, names: Iterable[str]) -> dict[str, Entry]:
        """Return those of ``names`` that the directory has."""
        with self.opened(directory) as parent_fds:
            found = {name: self._lookup(directory, parent_fds, name) for name in names}
        return {name: entry for name, entry in found.items() if entry is not None}

    def read_link(self, entry: Entry) -> str:
        """Return the destination of a symbolic link."""
        with self.parent_of(entry) as (parent_fd, name):
            return os.readlink(name, dir_fd=parent_fd)

    @contextlib.contextmanager
    def parent_of(self, entry: Entry) -> Iterator[tuple[int, str]]:
        """Give the directory an entry lies in, in its uppermost layer, and its name there."""
        path, _, name = entry.path.rpartition("/")
        parent_fd = _open_directory(self._layer_fds[entry.layers[0]], path)
        try:
            yield parent_fd, name
        finally:
            os.close(parent_fd)

    @contextlib.contextmanager
    def opened(self, directory: Entry) -> Iterator[list[int]]:
        """Give a descriptor of the directory for each layer that has a part in it."""
        with contextlib.ExitStack() as stack:
            fds = []
            for layer in directory.layers:
                fds.append(_open_directory(self._layer_fds[layer], directory.path))
                stack.callback(os.close, fds[-1])
            yield fds

    def _lookup(self, directory: Entry, parent_fds: list[int], name: str) -> Entry | None:
        if name == self._mark:
            return None
        path = f"{directory.path}/{name}"
        layers: list[int] = []
        uppermost: os.stat_result | None = None
        for layer, parent_fd in zip(directory.layers, parent_fds, strict=True):
            try:
                status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                if uppermost is None and not is_whiteout(status):
                    return Entry(path, (layer,), status)
                break
            uppermost = uppermost or status
            layers.append(layer)
            if layer != directory.layers[-1] and _is_opaque_directory(parent_fd, name):
                break
        return Entry(path, tuple(layers), uppermost) if uppermost else None


def _open_directory(root_fd: int, path: str) -> int:
    path = path.lstrip("/") or "."
    return open_at(root_fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT)


def _is_opaque_directory(parent_fd: int, name: str) -> bool:
    fd = _open_directory(parent_fd, name)
    try:
        return is_opaque(fd)
    finally:
        os.close(fd)
