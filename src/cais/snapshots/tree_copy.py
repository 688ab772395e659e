"""A directory of a merged tree copied as it is seen, with everything that belongs to its files."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_at
from cais.snapshots.inodes import as_they_are, copy_attributes, copy_inode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.snapshots.inodes import OwnerOf
    from cais.snapshots.merged import Entry, MergedTree

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


def copy_tree(
    tree: MergedTree,
    source: Entry,
    target_fd: int,
    *,
    with_sockets: bool = True,
    owner_of: OwnerOf = as_they_are,
) -> None:
    """Copy what is below ``source`` into an empty directory, whose own attributes stay.

    Owners, modes, times, extended attributes, hard links, holes and special files are kept.
    Breadth first; directories get their times and modes last, the deepest first.

    Args:
        tree: does not change meanwhile.
        source: a directory of it.
        target_fd: Borrowed.
        with_sockets: which mean nothing without the process that listens.
        owner_of: says whose the copies are.

    Raises:
        OSError: reading or writing failed; the target is incomplete.

    Blocks: for as long as the copy takes.

    """
    base = len(source.path)
    links = Links(target_fd)
    directories = [source]
    for directory in directories:  # grows as it is walked
        with opened_below(target_fd, directory.path[base:]) as parent_fd:
            for entry in tree.children(directory):
                if entry.is_directory:
                    os.mkdir(entry.name, 0o700, dir_fd=parent_fd)
                    directories.append(entry)
                elif not with_sockets and stat.S_ISSOCK(entry.status.st_mode):
                    continue
                elif not links.make(entry.status, entry.path[base:], parent_fd):
                    with tree.parent_of(entry) as (source_fd, name):
                        copy_inode(source_fd, parent_fd, name, entry.status, owner_of)
    for directory in reversed(directories[1:]):
        with (
            tree.opened(directory) as source_fds,
            opened_below(target_fd, directory.path[base:]) as fd,
        ):
            copy_attributes(source_fds[0], fd, directory.status, owner_of)


class Links:
    """Which inodes have been copied into a tree, for those that have several names."""

    def __init__(self, target_fd: int) -> None:
        """Args: target_fd is the top of the tree that is written. Borrowed."""
        self._target_fd = target_fd
        self._copied: dict[tuple[int, int], str] = {}

    def make(self, status: os.stat_result, path: str, parent_fd: int) -> bool:
        """Link ``path``, in ``parent_fd``, to the copy of the same inode; False: it is the first.

        The caller then copies it under that name.
        """
        if status.st_nlink == 1:
            return False
        first = self._copied.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return False
        os.link(
            first.lstrip("/"),
            os.path.basename(path),
            src_dir_fd=self._target_fd,
            dst_dir_fd=parent_fd,
            follow_symlinks=False,
        )
        return True


@contextlib.contextmanager
def opened_below(top_fd: int, path: str) -> Iterator[int]:
    """Give the directory at ``path`` below another one; no link is followed on the way."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    fd = open_at(top_fd, path.lstrip("/") or ".", flags, resolve=_STRICT)
    try:
        yield fd
    finally:
        os.close(fd)
