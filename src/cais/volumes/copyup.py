"""Fill a new volume with what the image has at its destination, without mounting anything.

The merged view of a container's root exists only inside a mount namespace. What lies at one path
can as well be read from the layers: of each name the uppermost counts, a whiteout (character
device 0:0) hides what is below, directories add up unless one is opaque. Layers never change, and
nothing in them is followed but the symbolic links of the path itself, which stay in the tree.

The copy is made beside the volume and moved in when it is complete and on disk: a crash leaves a
volume that is still empty, or full.

Spec: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cais.errors import InvalidArgumentError
from cais.linux.durable import sync_directory
from cais.linux.filesystem import remove_tree, sync_filesystem
from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_at
from cais.volumes.inodes import copy_attributes, copy_inode

_LINK_LIMIT = 40
_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_STAGING = ".copy-up"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name of the merged tree: where it is, in which layers (uppermost first), and what."""

    path: str
    layers: tuple[int, ...]
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


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
    with contextlib.ExitStack() as stack:
        tree = MergedTree([_open_layer(stack, path) for path in lower_dirs])
        source = tree.find(path_inside)
        if source is None or not source.is_directory:
            return False
        _fill(tree, source, target)
    return True


class MergedTree:
    """Read-only view of overlay layers laid over each other."""

    def __init__(self, layer_fds: Sequence[int]) -> None:
        """Args: layer_fds are directories, the topmost first, at least one. Borrowed."""
        self._layer_fds = layer_fds

    def root(self) -> _Entry:
        """Return the top of the tree."""
        return _Entry(".", tuple(range(len(self._layer_fds))), os.fstat(self._layer_fds[0]))

    def find(self, path: str) -> _Entry | None:
        """Return what is at ``path``, symbolic links resolved inside the tree; None: nothing."""
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

    def lookup(self, directory: _Entry, name: str) -> _Entry | None:
        """Return the entry ``name`` of a directory, not following it; None: there is none."""
        if not directory.is_directory:
            return None
        with self.opened(directory) as parent_fds:
            return self._lookup(directory, parent_fds, name)

    def children(self, directory: _Entry) -> list[_Entry]:
        """Return the entries of a directory."""
        with self.opened(directory) as parent_fds:
            names = {name for fd in parent_fds for name in os.listdir(fd)}
            found = (self._lookup(directory, parent_fds, name) for name in sorted(names))
            return [entry for entry in found if entry is not None]

    def read_link(self, entry: _Entry) -> str:
        """Return the destination of a symbolic link."""
        with self.parent_of(entry) as (parent_fd, name):
            return os.readlink(name, dir_fd=parent_fd)

    @contextlib.contextmanager
    def parent_of(self, entry: _Entry) -> Iterator[tuple[int, str]]:
        """Give the directory an entry lies in, in its uppermost layer, and its name there."""
        path, _, name = entry.path.rpartition("/")
        parent_fd = _open_directory(self._layer_fds[entry.layers[0]], path)
        try:
            yield parent_fd, name
        finally:
            os.close(parent_fd)

    @contextlib.contextmanager
    def opened(self, directory: _Entry) -> Iterator[list[int]]:
        """Give a descriptor of the directory for each layer that has a part in it."""
        with contextlib.ExitStack() as stack:
            fds = []
            for layer in directory.layers:
                fds.append(_open_directory(self._layer_fds[layer], directory.path))
                stack.callback(os.close, fds[-1])
            yield fds

    def _lookup(self, directory: _Entry, parent_fds: list[int], name: str) -> _Entry | None:
        path = f"{directory.path}/{name}"
        layers: list[int] = []
        uppermost: os.stat_result | None = None
        for layer, parent_fd in zip(directory.layers, parent_fds, strict=True):
            try:
                status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                if uppermost is None and not _is_whiteout(status):
                    return _Entry(path, (layer,), status)
                break
            uppermost = uppermost or status
            layers.append(layer)
            if _is_opaque(parent_fd, name):
                break
        return _Entry(path, tuple(layers), uppermost) if uppermost else None


def _fill(tree: MergedTree, source: _Entry, target: str) -> None:
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


def _copy_tree(tree: MergedTree, source: _Entry, target_fd: int) -> None:
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
    entry: _Entry,
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


def _open_layer(stack: contextlib.ExitStack, path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _open_directory(root_fd: int, path: str) -> int:
    path = path.lstrip("/") or "."
    return open_at(root_fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(parent_fd: int, name: str) -> bool:
    fd = _open_directory(parent_fd, name)
    try:
        return any(_has_attribute(fd, attribute) for attribute in _OPAQUE)
    finally:
        os.close(fd)


def _has_attribute(fd: int, attribute: str) -> bool:
    try:
        return os.getxattr(fd, attribute) == b"y"
    except OSError as exc:
        if exc.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise
