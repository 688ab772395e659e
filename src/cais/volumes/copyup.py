"""Fill a new volume with what the image has at its destination, without mounting anything.

The merged view of a container's root exists only inside a mount namespace. What lies at one path
can as well be read from the layers (``snapshots.merged``), which never change.

The copy is made beside the volume and moved in when it is complete and on disk: a crash leaves a
volume that is still empty, or full.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from cais.linux.durable import sync_directory
from cais.linux.filesystem import remove_tree, sync_filesystem
from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_at
from cais.snapshots.merged import Entry, MergedTree, open_stack
from cais.volumes.inodes import copy_attributes, copy_inode

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_STAGING = ".copy-up"


def copy_merged(lower_dirs: Sequence[str], path_inside: str, target: str) -> bool:
    """Copy the merged view of ``path_inside`` over overlay layers into an empty directory.

    Owners, modes, times, extended attributes, hard links, devices and FIFOs are kept; sockets
    are left out. The directory itself takes owner and mode of its source.

    Args:
        lower_dirs: layer directories, the topmost first.
        path_inside: absolute path in the image; symlinks resolve inside the merged tree.
        target: the volume's ``_data``; untouched unless empty.

    Returns:
        Whether something was copied: False if ``target`` is not empty or the image has no
        directory there.

    Raises:
        InvalidArgumentError: ``path_inside`` runs in a circle of symbolic links.
        OSError: reading or writing failed; ``target`` is as it was, but for a failure of the
            last step, which may leave part of the names moved in.

    Blocks: as long as the copy and its way to the disk take.

    """
    if not lower_dirs or os.listdir(target):
        return False
    with open_stack(lower_dirs) as tree:
        source = tree.find(path_inside)
        if source is None or not source.is_directory:
            return False
        _fill(tree, source, target)
    return True


def _fill(tree: MergedTree, source: Entry, target: str) -> None:
    volume_fd = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        remove_tree(volume_fd, _STAGING)
        os.mkdir(_STAGING, 0o700, dir_fd=volume_fd)
        staging_fd = _open_directory(volume_fd, _STAGING)
        try:
            _copy_tree(tree, source, staging_fd)
            sync_filesystem(staging_fd)
            for name in os.listdir(staging_fd):
                os.rename(name, name, src_dir_fd=staging_fd, dst_dir_fd=target_fd)
        finally:
            os.close(staging_fd)
        with tree.opened(source) as source_fds:
            copy_attributes(source_fds[0], target_fd, source.status)
    finally:
        remove_tree(volume_fd, _STAGING)
        os.close(target_fd)
        os.close(volume_fd)
    sync_directory(target)


def _copy_tree(tree: MergedTree, source: Entry, target_fd: int) -> None:
    """Copy breadth first; directories get their times and modes last, the deepest first."""
    base = len(source.path)
    linked: dict[tuple[int, int], str] = {}
    directories = [source]
    for directory in directories:  # grows as it is walked
        with _opened_target(target_fd, directory.path[base:]) as parent_fd:
            for entry in tree.children(directory):
                if entry.is_directory:
                    os.mkdir(os.path.basename(entry.path), 0o700, dir_fd=parent_fd)
                    directories.append(entry)
                else:
                    _copy_leaf(tree, entry, target_fd, parent_fd, linked, entry.path[base:])
    for directory in reversed(directories[1:]):
        with (
            tree.opened(directory) as source_fds,
            _opened_target(target_fd, directory.path[base:]) as fd,
        ):
            copy_attributes(source_fds[0], fd, directory.status)


def _copy_leaf(
    tree: MergedTree,
    entry: Entry,
    target_fd: int,
    parent_fd: int,
    linked: dict[tuple[int, int], str],
    path: str,
) -> None:
    key = (entry.status.st_dev, entry.status.st_ino)
    if entry.status.st_nlink > 1 and key in linked:
        os.link(
            linked[key].lstrip("/"),
            os.path.basename(path),
            src_dir_fd=target_fd,
            dst_dir_fd=parent_fd,
            follow_symlinks=False,
        )
        return
    with tree.parent_of(entry) as (source_fd, name):
        if copy_inode(source_fd, parent_fd, name, entry.status):
            linked[key] = path


@contextlib.contextmanager
def _opened_target(target_fd: int, path: str) -> Iterator[int]:
    fd = _open_directory(target_fd, path)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_directory(root_fd: int, path: str) -> int:
    path = path.lstrip("/") or "."
    return open_at(root_fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT)
