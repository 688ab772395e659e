"""Trees as archives: a layer with what changed, or everything for ``docker export``.

The same tree gives the same bytes: names are sorted, hard links refer to the first name of their
file, nothing of the time or place of writing is in it. Sockets are left out, as Docker leaves them
out. Holes of sparse files are written as zeros, which the image specification asks for and
compression takes care of.

What is archived may be written to meanwhile by somebody hostile. Every file is looked up once, by
a descriptor that follows and opens nothing; what is no regular file is never opened. One that
shrinks while it is read is filled up with zeros, one that vanishes is left out.

Spec: OCI image-spec 1.1, layer.md "Change Types", "Whiteouts"; POSIX.1-2017 pax.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.images.comparison import ExactComparison, Kind, attributes_at
from cais.images.tar import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from cais.images.tar_headers import member_header
from cais.images.tar_writer import END, padding
from cais.images.whiteouts import WHITEOUT, WHITEOUT_OPAQUE
from cais.snapshots.inodes import as_they_are

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.snapshots import merged
    from cais.snapshots.inodes import OwnerOf
    from cais.snapshots.merged import MergedTree

_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}
_CHUNK = 1024 * 1024
_ZEROS = bytes(_CHUNK)
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


def pack_changes(
    now: MergedTree, before: MergedTree | None, *, is_laid_over: bool
) -> Iterator[bytes]:
    """Write the layer that makes ``now`` out of ``before``; nothing at all if they are the same.

    Args:
        now: the changed tree.
        before: what the layers below show; None: there are none.
        is_laid_over: as ``Comparison``.

    Raises:
        InvalidArgumentError: a name no layer can hold.
        OSError: the disk failed.

    """
    comparison = ExactComparison(now, before, is_laid_over=is_laid_over)
    packer = _Packer(now, _plain)
    is_empty = True
    if comparison.is_root_changed() and (before is not None or now.children(now.root())):
        yield from packer.member(now.root())
        is_empty = False
    for change in comparison:
        is_empty = False
        if change.kind is Kind.DELETED:
            directory, _, name = _plain(change.entry.path).rpartition("/")
            yield _whiteout(directory, WHITEOUT + name)
        elif change.kind is Kind.EMPTIED:
            yield _whiteout(_plain(change.entry.path), WHITEOUT_OPAQUE)
        else:
            _check_name(change.entry)
            yield from packer.member(change.entry)
    if not is_empty:
        yield END


def pack_tree(
    tree: MergedTree,
    shown: str = "",
    is_closed: Callable[[merged.Entry], bool] = lambda _: False,
    *,
    owner_of: OwnerOf = as_they_are,
) -> Iterator[bytes]:
    """Write all of a tree, and the end marker.

    Args:
        tree: to be written.
        shown: the name of the root in the archive; empty: the root itself is left out.
        is_closed: says of a directory whether what is in it is left out.
        owner_of: from a user and a group of the tree to those in the archive.

    Raises:
        InvalidArgumentError: a name no archive can hold.
        OSError: the disk failed.

    """
    top = shown.rstrip("/")
    packer = _Packer(tree, (lambda path: top + path[1:] or shown) if shown else _plain, owner_of)
    if shown:
        yield from packer.member(tree.root())
    root = tree.root()
    stack = [] if is_closed(root) else [iter(tree.children(root))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        yield from packer.member(entry)
        if entry.is_directory and not is_closed(entry):
            stack.append(iter(_children(tree, entry)))
    yield END


def pack_file(
    directory: MergedTree, name: str, shown: str = "", *, owner_of: OwnerOf = as_they_are
) -> Iterator[bytes]:
    """Write one entry of a directory, alone and perhaps by another name, and the end marker."""
    entry = directory.lookup(directory.root(), name)
    if entry is not None:
        yield from _Packer(directory, lambda _: shown or name, owner_of).member(entry)
    yield END


class _Packer:
    """Writes members; remembers which files it has written under another name."""

    def __init__(
        self, tree: MergedTree, name_of: Callable[[str], str], owner_of: OwnerOf = as_they_are
    ) -> None:
        self._tree = tree
        self._name_of = name_of
        self._owner_of = owner_of
        self._linked: dict[tuple[int, int], str] = {}

    def member(self, found: merged.Entry) -> Iterator[bytes]:
        """Yield header and data of one file; nothing for a socket and for what has vanished."""
        try:
            fd = self._open(found)
        except OSError as exc:
            if exc.errno in _VANISHED:
                return
            raise
        try:
            yield from self._describe(fd, self._name_of(found.path))
        finally:
            os.close(fd)

    def _open(self, found: merged.Entry) -> int:
        with self._tree.parent_of(found) as (parent_fd, name):
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)

    def _describe(self, fd: int, name: str) -> Iterator[bytes]:
        facts = os.fstat(fd)
        kind = _KINDS.get(stat.S_IFMT(facts.st_mode))
        if kind is None:
            return
        entry = _entry(name, kind, facts)
        entry.uid, entry.gid = self._owner_of(facts.st_uid, facts.st_gid)
        if facts.st_nlink > 1 and kind != DIRECTORY:
            first = self._linked.setdefault((facts.st_dev, facts.st_ino), name)
            if first != name:
                entry.kind, entry.link = HARD_LINK, first
                yield member_header(entry)
                return
        # Through /proc, as these calls take no descriptor opened with O_PATH.
        entry.xattrs = attributes_at(f"/proc/self/fd/{fd}", follow=True)
        if kind == SYMLINK:
            entry.link = os.readlink("", dir_fd=fd)
        if kind != REGULAR:
            yield member_header(entry)
            return
        reader_fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            entry.size = facts.st_size
            yield member_header(entry)
            yield from _data(reader_fd, entry.size)
        finally:
            os.close(reader_fd)


def _entry(name: str, kind: int, facts: os.stat_result) -> Entry:
    entry = Entry()
    entry.name, entry.kind = name, kind
    entry.mode = stat.S_IMODE(facts.st_mode)
    entry.mtime_ns = facts.st_mtime_ns
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    return entry


def _data(fd: int, size: int) -> Iterator[bytes]:
    """Yield exactly ``size`` bytes of a file, its holes without reading them, and the padding."""
    position = 0
    while position < size:
        start = _next_data(fd, position, size)
        while position < start:
            yield _ZEROS[: start - position]
            position += min(start - position, _CHUNK)
        if position < size:
            chunk = os.pread(fd, min(size - position, _CHUNK), position)
            chunk = chunk or _ZEROS[: size - position]  # it was cut off meanwhile
            position += len(chunk)
            yield chunk
    if size % BLOCK:
        yield padding(size)


def _next_data(fd: int, position: int, size: int) -> int:
    """Return where there is data from ``position`` on, at most ``size``."""
    if size - position <= _CHUNK:
        return position
    try:
        return min(os.lseek(fd, position, os.SEEK_DATA), size)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a hole up to the end
            return size
        raise


def _children(tree: MergedTree, directory: merged.Entry) -> list[merged.Entry]:
    try:
        return tree.children(directory)
    except OSError as exc:
        if exc.errno in _VANISHED:
            return []
        raise


def _plain(path: str) -> str:
    return path.removeprefix("./")


def _check_name(found: merged.Entry) -> None:
    if found.name.startswith(WHITEOUT):
        raise InvalidArgumentError(
            f"{_plain(found.path)[:200]!r}: a layer cannot hold a file whose name begins with "
            f"{WHITEOUT}"
        )


def _whiteout(directory: str, name: str) -> bytes:
    entry = Entry()
    entry.name = f"{directory}/{name}" if directory else name
    entry.mode = 0o600
    return member_header(entry)
