"""What was changed in a copy of a merged tree, found by comparing, and written as a layer.

A file is unchanged for sure if neither it nor a directory above it has a newer change time than
the copy: nobody can set that time. All others are compared in every attribute and, where nothing
else differs, in content.

Spec: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"; inode(7).
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.linux.whiteouts import is_whiteout, make_whiteout
from cais.snapshots.inodes import attributes_of, copy_attributes, copy_inode
from cais.snapshots.tree_copy import Links, opened_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.snapshots.merged import Entry, MergedTree

_BLOCK_BYTES = 1 << 20
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Change:
    """One name that is new, changed or gone."""

    path: str
    """From the top, with a slash before each name; "" is the top itself."""

    status: os.stat_result | None
    """As it is now; None: gone."""


class ChangedTree:
    """A writable copy of a tree beside what it was copied from."""

    def __init__(self, original: MergedTree, top_fd: int, since_ns: int) -> None:
        """Args: top_fd is the copy, complete before ``since_ns`` by its disk's clock. Borrowed."""
        self._original = original
        self._top_fd = top_fd
        self._since_ns = since_ns

    def changes(self) -> Iterator[Change]:
        """Yield what differs, directories before what is in them.

        A directory is not a change because of its names, nor by its times alone.

        Blocks: for a walk through all of it.
        """
        top = os.fstat(self._top_fd)
        pending: list[tuple[str, Entry | None, bool]] = [("", self._original.root(), False)]
        if self._is_other_directory("", top, self._original.root()):
            yield Change("", top)
        while pending:
            path, original, was_moved = pending.pop()
            before: dict[str, Entry] = {}
            if original is not None and original.is_directory:
                before = {entry.name: entry for entry in self._original.children(original)}
            with contextlib.suppress(FileNotFoundError), opened_below(self._top_fd, path) as fd:
                was_moved = was_moved or os.fstat(fd).st_ctime_ns >= self._since_ns
                for name, status in _list(fd):
                    below = f"{path}/{name}"
                    entry = before.pop(name, None)
                    if self._differs(fd, name, below, status, entry, was_moved=was_moved):
                        yield Change(below, status)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append((below, entry, was_moved))
            for name in before:
                yield Change(f"{path}/{name}", None)

    def write(self, target_fd: int) -> None:
        """Make the empty directory ``target_fd`` the layer that holds the changes.

        Raises:
            OSError: reading or writing failed; the target is incomplete.

        Blocks: for as long as the walk and the copies take.

        """
        links = Links(target_fd)
        made = {"": None}
        for change in self.changes():
            parent, _, name = change.path.rpartition("/")
            _make_directories(target_fd, parent, made)
            if not name:
                continue
            with opened_below(target_fd, parent) as parent_fd:
                if change.status is None:
                    make_whiteout(parent_fd, name)
                elif stat.S_ISDIR(change.status.st_mode):
                    _make_directories(target_fd, change.path, made)
                elif not links.make(change.status, change.path, parent_fd):
                    with opened_below(self._top_fd, parent) as source_fd:
                        copy_inode(source_fd, parent_fd, name, change.status)
        for path in reversed(made):  # what is made in a directory changes its times
            with opened_below(self._top_fd, path) as fd, opened_below(target_fd, path) as copy_fd:
                copy_attributes(fd, copy_fd, os.fstat(fd))

    def _differs(
        self,
        parent_fd: int,
        name: str,
        path: str,
        status: os.stat_result,
        original: Entry | None,
        *,
        was_moved: bool,
    ) -> bool:
        if original is None or stat.S_IFMT(status.st_mode) != stat.S_IFMT(original.status.st_mode):
            return True
        if status.st_ctime_ns < self._since_ns and not was_moved:
            return False
        if stat.S_ISDIR(status.st_mode):
            return self._is_other_directory(path, status, original)
        if _facts(status) != _facts(original.status) or status.st_nlink != original.status.st_nlink:
            return True
        with self._original.parent_of(original) as (original_fd, _):
            return not (
                _attributes(parent_fd, name) == _attributes(original_fd, name)
                and _content(parent_fd, name, status) == _content(original_fd, name, status)
                and (not stat.S_ISREG(status.st_mode) or _same_bytes(parent_fd, original_fd, name))
            )

    def _is_other_directory(self, path: str, status: os.stat_result, original: Entry) -> bool:
        if _owner(status) != _owner(original.status):
            return True
        with (
            opened_below(self._top_fd, path) as fd,
            self._original.opened(original) as original_fds,
        ):
            return _values(fd) != _values(original_fds[0])


def _make_directories(top_fd: int, path: str, made: dict[str, None]) -> None:
    """Make ``path`` and what of its parents is not ``made``."""
    names = path.split("/")
    for count in range(2, len(names) + 1):
        part = "/".join(names[:count])
        if part not in made:
            with opened_below(top_fd, "/".join(names[: count - 1])) as parent_fd:
                os.mkdir(names[count - 1], 0o700, dir_fd=parent_fd)
            made[part] = None


def _list(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the names in a directory; not what would be a whiteout of a layer."""
    for name in sorted(os.listdir(fd), key=os.fsencode):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not is_whiteout(status):
                yield name, status


def _owner(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return (*_owner(status), status.st_rdev, status.st_size, status.st_mtime_ns)


def _values(fd: int) -> dict[str, bytes]:
    return {name: os.getxattr(fd, name) for name in attributes_of(fd)}


def _attributes(parent_fd: int, name: str) -> dict[str, bytes]:
    path = f"/proc/self/fd/{parent_fd}/{name}"
    names = attributes_of(path)
    return {each: os.getxattr(path, each, follow_symlinks=False) for each in names}


def _content(parent_fd: int, name: str, status: os.stat_result) -> str:
    return os.readlink(name, dir_fd=parent_fd) if stat.S_ISLNK(status.st_mode) else ""


def _same_bytes(one_fd: int, other_fd: int, name: str) -> bool:
    with (
        open(os.open(name, _OPEN_FILE, dir_fd=one_fd), "rb", buffering=0) as one,
        open(os.open(name, _OPEN_FILE, dir_fd=other_fd), "rb", buffering=0) as other,
    ):
        while True:
            block = one.read(_BLOCK_BYTES)
            if block != other.read(_BLOCK_BYTES):
                return False
            if not block:
                return True
