"""What one tree has that another one has not: what a container changed in its root.

Two kinds of comparison walk the same way. ``Comparison`` answers ``docker diff``: what a user would
call a change. ``ExactComparison`` is for layers: whatever differs, down to attributes and times of
directories, so that the layer on top of the one tree gives the other.

Where the changed tree is the other one with a directory laid over it, only that directory is
walked: the rest is known to be the same. Otherwise (a snapshotter that copies) both trees are read
in full. Either may be written to meanwhile; what vanishes while it is looked at is left out.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from cais.linux.whiteouts import is_steering_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.snapshots.merged import Entry, MergedTree

    Step = tuple[str, "Entry | None", "Entry | None"]
    """A name, what it is now, and what it was."""

_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_KEPT_ATTRIBUTES = ("user.", "trusted.", "security.capability", "system.posix_acl_")
_SECOND_NS = 1_000_000_000


class Kind(IntEnum):
    """The numbers are those of the Engine API, but for the last."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2
    EMPTIED = 3
    """A directory whose former content is gone as a whole, in place of a deletion for each name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; a directory comes before what is in it."""

    kind: Kind
    entry: Entry
    """As it is now; as it was if it is deleted."""


class Comparison:
    """``now`` against ``before``, None being an empty tree.

    Args:
        now: the tree that may have changed.
        before: what it was made from.
        is_laid_over: ``now`` is one directory laid over ``before``.

    """

    def __init__(self, now: MergedTree, before: MergedTree | None, *, is_laid_over: bool) -> None:
        self._now = now
        self._before = before
        self._is_laid_over = is_laid_over and before is not None

    def __iter__(self) -> Iterator[Change]:
        """Yield the changes below the root in the order of their paths."""
        before_root = self._before.root() if self._before is not None else None
        stack = [self._enter(self._now.root(), before_root, is_told=True)]
        while stack:
            step = next(stack[-1].steps, None)
            if step is None:
                stack.pop()
                continue
            _, now, before = step
            change = self._judge(now, before)
            if change is not None:
                yield from _untold(stack)
                yield change
            if now is not None and now.is_directory:
                directory = before if before is not None and before.is_directory else None
                stack.append(self._enter(now, directory, is_told=change is not None))
                if stack[-1].is_emptied:
                    yield from _untold(stack)
                    yield Change(Kind.EMPTIED, now)

    def _judge(self, now: Entry | None, before: Entry | None) -> Change | None:
        if now is None:
            return Change(Kind.DELETED, before) if before is not None else None
        if before is None:
            return Change(Kind.ADDED, now)
        return Change(Kind.MODIFIED, now) if self._differs(now, before) else None

    def _enter(self, now: Entry, before: Entry | None, *, is_told: bool) -> _Frame:
        try:
            steps = self._steps(now, before)
        except OSError as exc:
            if exc.errno not in _VANISHED:
                raise
            steps = []
        deleted = [step for step in steps if step[1] is None]
        is_emptied = (
            len(deleted) > 1
            and before is not None
            and now.path != "."  # overlayfs merges roots whatever stands on them
            and self._folds(before, len(deleted))
        )
        if is_emptied:
            steps = [step for step in steps if step[1] is not None]
        return _Frame(now, iter(steps), is_told=is_told, is_emptied=is_emptied)

    def _steps(self, now: Entry, before: Entry | None) -> list[Step]:
        """Return the names of a directory that may have changed, sorted by their bytes."""
        if before is None or self._before is None:
            return [(entry.name, entry, None) for entry in self._now.children(now)]
        written: dict[str, Entry | None]
        if self._is_laid_over and len(now.layers) > 1:
            written = self._now.written(now)
            known = self._before.select(before, written)
        else:
            known = {entry.name: entry for entry in self._before.children(before)}
            written = dict.fromkeys(known)
            written |= {entry.name: entry for entry in self._now.children(now)}
        return [
            (name, written[name], known.get(name))
            for name in sorted(written, key=os.fsencode)
            if written[name] is not None or name in known
        ]

    def _differs(self, now: Entry, before: Entry) -> bool:
        """Decide as Docker does: by what stat(2) says and the file's capabilities.

        Nothing a copy changes by itself counts, and of a directory neither its size nor its time.
        """
        one, other = now.status, before.status
        if _identity(one) != _identity(other):
            return True
        if now.is_directory:
            return False
        if one.st_size != other.st_size or not _is_same_time(one.st_mtime_ns, other.st_mtime_ns):
            return True
        return self._capability(self._now, now) != self._capability(self._before, before)

    def _folds(self, before: Entry, deleted: int) -> bool:
        """Whether the deletion of so many names of a directory is told as one."""
        del before, deleted
        return False

    def _capability(self, tree: MergedTree | None, entry: Entry) -> bytes:
        return read_attributes(tree, entry).get("security.capability", b"") if tree else b""


class ExactComparison(Comparison):
    """Everything that makes the trees differ; for layers.

    A file with several names is told under all of them or none: a link in a layer has to find its
    file in the same layer. What was laid over is told as it lies there, which fulfils that; two
    whole trees are compared twice, the first time to see which files are concerned.
    """

    def __init__(self, now: MergedTree, before: MergedTree | None, *, is_laid_over: bool) -> None:
        super().__init__(now, before, is_laid_over=is_laid_over)
        self._linked: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[Change]:
        """As ``Comparison``."""
        if self._before is not None and not self._is_laid_over:
            self._linked = {
                _inode(change.entry.status)
                for change in super().__iter__()
                if change.kind in (Kind.ADDED, Kind.MODIFIED) and _is_linked(change.entry)
            }
        yield from super().__iter__()

    def is_root_changed(self) -> bool:
        """Whether the root itself differs, its time apart: making it a container's sets that."""
        if self._before is None:
            return True
        now, before = self._now.root(), self._before.root()
        return _identity(now.status) != _identity(before.status) or read_attributes(
            self._now, now
        ) != read_attributes(self._before, before)

    def _differs(self, now: Entry, before: Entry) -> bool:
        if self._is_laid_over and not now.is_directory:
            return True  # whatever was laid over it: a time may have been set back
        one, other = now.status, before.status
        if _identity(one) != _identity(other) or one.st_mtime_ns != other.st_mtime_ns:
            return True
        if not now.is_directory and one.st_size != other.st_size:
            return True
        if _is_linked(now) and _inode(one) in self._linked:
            return True
        assert self._before is not None
        if stat.S_ISLNK(one.st_mode):
            return self._now.read_link(now) != self._before.read_link(before)
        return read_attributes(self._now, now) != read_attributes(self._before, before)

    def _folds(self, before: Entry, deleted: int) -> bool:
        assert self._before is not None
        return len(self._before.children(before)) == deleted


class _Frame:
    """A directory being walked."""

    __slots__ = ("directory", "is_emptied", "is_told", "steps")

    def __init__(
        self, directory: Entry, steps: Iterator[Step], *, is_told: bool, is_emptied: bool
    ) -> None:
        self.directory = directory
        self.steps = steps
        self.is_told = is_told
        self.is_emptied = is_emptied


def read_attributes(tree: MergedTree, entry: Entry) -> dict[str, bytes]:
    """Return the extended attributes that belong to a file wherever it is.

    Labels of a security module and overlayfs's own notes belong to the host.
    """
    with tree.parent_of(entry) as (parent_fd, name):
        return attributes_at(f"/proc/self/fd/{parent_fd}/{name}", follow=False)


def attributes_at(path: str, *, follow: bool) -> dict[str, bytes]:
    """Return the attributes a layer keeps of what is at a path."""
    try:
        names = os.listxattr(path, follow_symlinks=follow)
        return {
            name: os.getxattr(path, name, follow_symlinks=follow)
            for name in names
            if name.startswith(_KEPT_ATTRIBUTES) and not is_steering_attribute(name)
        }
    except OSError as exc:
        if exc.errno in (*_VANISHED, errno.ENODATA, errno.EOPNOTSUPP, errno.EACCES):
            return {}
        raise


def _untold(stack: list[_Frame]) -> Iterator[Change]:
    """Yield the directories above a change that were not told themselves."""
    for frame in stack:
        if not frame.is_told:
            frame.is_told = True
            yield Change(Kind.MODIFIED, frame.directory)


def _is_linked(entry: Entry) -> bool:
    return entry.status.st_nlink > 1 and not entry.is_directory


def _inode(status: os.stat_result) -> tuple[int, int]:
    return (status.st_dev, status.st_ino)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_mode, status.st_uid, status.st_gid, status.st_rdev)


def _is_same_time(one_ns: int, other_ns: int) -> bool:
    """Whether two times are the same; one without a fraction came through an archive."""
    if one_ns % _SECOND_NS == 0 or other_ns % _SECOND_NS == 0:
        return one_ns // _SECOND_NS == other_ns // _SECOND_NS
    return one_ns == other_ns
