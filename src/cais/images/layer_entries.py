"""The entries of a layer as files: created inside the tree, never over anything.

The last component is created with O_EXCL and O_NOFOLLOW or the like, a hard link's source is
looked up inside the tree and never followed, and what stands in the way is removed first.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cais.images.attributes import set_attributes, set_attributes_at
from cais.images.layer_names import InvalidLayerError, split_name
from cais.images.layer_tree import DEFAULT_ACL, make_directory
from cais.images.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
)
from cais.linux import whiteouts
from cais.linux.filesystem import remove_tree

if TYPE_CHECKING:
    from cais.images.layer_tree import LayerTree
    from cais.images.tar import Entry, TarReader
    from cais.images.whiteouts import Whiteouts

_DEVICE_TYPES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class EntryMaker:
    """Makes what the archive lists; ``make`` takes the entries in its order."""

    def __init__(self, reader: TarReader, tree: LayerTree, whiteouts: Whiteouts) -> None:
        self._reader = reader
        self._tree = tree
        self._whiteouts = whiteouts
        self.size_bytes = 0
        """Of the files made so far."""
        self.has_root = False
        """Whether the root directory was among them."""
        self.directory_times: list[tuple[str, str, int]] = []
        """Parent, name and time of each directory, to be set when nothing changes it any more."""
        self._makers = {
            REGULAR: self._regular,
            HARD_LINK: self._hard_link,
            SYMLINK: self._symlink,
            CHARACTER: self._special,
            BLOCK_DEVICE: self._special,
            FIFO: self._special,
            DIRECTORY: self._directory,
        }

    def make(self, entry: Entry, parent: str, name: str) -> None:
        """Make ``parent/name``; an empty name is the root.

        Raises:
            InvalidLayerError, OSError: it cannot be.

        """
        if not name:
            self._root(entry)
            return
        maker = self._makers.get(entry.kind)
        if maker is None:
            raise InvalidLayerError(entry.name, f"unhandled tar header type {entry.kind}")
        maker(entry, parent, name)

    def _regular(self, entry: Entry, parent: str, name: str) -> None:
        parent_fd = self._tree.directory(parent)
        try:
            fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(parent, name)
            fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=parent_fd)
        try:
            self._reader.copy_file(fd, entry)
            set_attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.size_bytes += entry.size

    def _directory(self, entry: Entry, parent: str, name: str) -> None:
        parent_fd = self._tree.directory(parent)
        was_hidden = False
        try:
            was_hidden = make_directory(parent_fd, name, entry.mode & 0o777)
            is_new = True
        except FileExistsError:
            facts = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            is_new = not stat.S_ISDIR(facts.st_mode)
            if is_new:
                parent_fd = self._clear(parent, name)
                make_directory(parent_fd, name, entry.mode & 0o777)
                was_hidden = True
        if is_new and self._tree.has_lowers:
            self._tree.forget()  # a link of a lower layer may have been hidden
            parent_fd = self._tree.directory(parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        self._tree.remember(f"{parent}/{name}" if parent else name, fd)
        if was_hidden and self._tree.has_lowers:
            whiteouts.make_opaque(fd)
        set_attributes(fd, entry)
        self._finish_later(entry, parent, name)

    def _symlink(self, entry: Entry, parent: str, name: str) -> None:
        if not entry.link:
            raise InvalidLayerError(entry.name, "link without a target")
        if self._tree.has_lowers:
            self._tree.forget()  # what was a directory of a lower layer may be elsewhere now
        parent_fd = self._tree.directory(parent)
        try:
            os.symlink(entry.link, name, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(parent, name)
            os.symlink(entry.link, name, dir_fd=parent_fd)
        set_attributes_at(parent_fd, name, entry)

    def _hard_link(self, entry: Entry, parent: str, name: str) -> None:
        source_parent, source = split_name(entry.link)
        if not source:
            raise InvalidLayerError(entry.name, "link without a target")
        if (source_parent, source) == (parent, name):
            raise InvalidLayerError(entry.name, "link to itself")
        for is_last in (False, True):
            # Two directories at once: the second look-up may drop the first from the cache.
            source_fd = os.dup(self._tree.directory(source_parent))
            try:
                self._link(source_fd, source, parent, name)
            except FileNotFoundError:
                if is_last or not self._tree.copy_up(source_parent, source):
                    raise
            else:
                return
            finally:
                os.close(source_fd)

    def _link(self, source_fd: int, source: str, parent: str, name: str) -> None:
        os.stat(source, dir_fd=source_fd, follow_symlinks=False)  # before anything is removed
        parent_fd = self._tree.directory(parent)
        try:
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        except FileExistsError:
            if _is_same_file(source_fd, source, parent_fd, name):
                return
            parent_fd = self._clear(parent, name)
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def _special(self, entry: Entry, parent: str, name: str) -> None:
        device = os.makedev(entry.major, entry.minor) if entry.kind != FIFO else 0
        if entry.kind == CHARACTER and device in whiteouts.DEVICES:
            self._whiteouts.hide(
                parent, name
            )  # overlayfs cannot show such a node: to it, it is a whiteout
            return
        mode = _DEVICE_TYPES[entry.kind] | 0o600
        parent_fd = self._tree.directory(parent)
        try:
            os.mknod(name, mode, device, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(parent, name)
            os.mknod(name, mode, device, dir_fd=parent_fd)
        set_attributes_at(parent_fd, name, entry)

    def _root(self, entry: Entry) -> None:
        if entry.kind != DIRECTORY:
            raise InvalidLayerError(entry.name, "the root is a directory")
        set_attributes(self._tree.root_fd, entry)
        self.has_root = True
        self._finish_later(entry, "", "")

    def _finish_later(self, entry: Entry, parent: str, name: str) -> None:
        """Keep what of a directory is set when nothing is made in it any more."""
        self.directory_times.append((parent, name, entry.mtime_ns))
        path = f"{parent}/{name}" if parent else name
        self._tree.default_acls.pop(path, None)
        if acl := entry.xattrs.get(DEFAULT_ACL):
            self._tree.default_acls[path] = acl

    def _clear(self, parent: str, name: str) -> int:
        """Remove what this layer has at ``name`` already; return the parent again."""
        remove_tree(self._tree.directory(parent), name)
        self._tree.forget()
        return self._tree.directory(parent)


def _is_same_file(source_fd: int, source: str, target_fd: int, target: str) -> bool:
    one = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
    other = os.stat(target, dir_fd=target_fd, follow_symlinks=False)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
