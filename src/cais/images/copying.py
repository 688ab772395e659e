"""Files into a directory tree that somebody hostile may be changing: the inside of ``docker cp``.

The tree is a container's, running or not, and belongs to whoever is in it: between any two looks a
directory may have become a link. So a parent is opened once, by openat2 with the container's root
as "/", and everything after that happens on descriptors: what is made is made with O_EXCL and
never followed, its attributes are set through the descriptor, and a node that is no regular file
is never opened. The worst a race can do is to put a file elsewhere in the same container.

Spec: Docker Engine API 1.51, ``PutContainerArchive``; SECURITY.md B1, B3.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.images.compression import open_decompressed
from cais.images.container_paths import is_pseudo
from cais.images.layer_names import InvalidLayerError, failure_at, split_name
from cais.images.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarReader,
)
from cais.linux.credentials import making_files_as
from cais.linux.filesystem import remove_tree
from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, ensure_directory, open_at
from cais.linux.whiteouts import is_steering_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.images.compression import Readable
    from cais.images.tar import Entry
    from cais.spec.identities import IdentityMaps

_DEVICES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_KINDS = {REGULAR: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK, **_DEVICES}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_STORAGE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class CopyError(InvalidArgumentError):
    """The archive cannot be unpacked here; the text begins as Docker's does."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Error processing tar file: {why}")


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How an archive is unpacked.

    Attributes:
        keeps_kinds: refuse to put a directory where something else is, and the other way round.
        owner: whose everything becomes; None: as the archive says.
        rename: the first component of names in the archive, and what takes its place.
        identities: who the owners are on the host, which the tree shows; None: the same.

    """

    keeps_kinds: bool = False
    owner: tuple[int, int] | None = None
    rename: tuple[str, str] | None = None
    identities: IdentityMaps | None = None


def copy_into(source: Readable, root_fd: int, path: str, options: CopyOptions) -> None:
    """Unpack an archive, plain or compressed, into a directory of a tree.

    What is there already is replaced, but for directories, which are filled up. Links of the tree
    on the way to a file are followed inside the tree, those of the archive lead where they say.

    Args:
        source: read to its end.
        root_fd: the tree. Borrowed.
        path: the directory, in the tree.
        options: see there.

    Raises:
        CopyError: malformed, or it leads out of ``path``, or breaks ``keeps_kinds``.
        ExhaustedError: "no space left on device".
        InternalError: the disk failed.

    """
    copy = _Copy(TarReader(open_decompressed(source)[0]), root_fd, path, options)
    if options.identities is None:
        copy.run()
        return
    with making_files_as(*options.identities.root):  # the host's root is nobody in such a tree
        copy.run()


class _Copy:
    """One archive on its way in."""

    def __init__(self, reader: TarReader, root_fd: int, path: str, options: CopyOptions) -> None:
        self._reader = reader
        self._root_fd = root_fd
        self._path = path
        self._options = options
        self._directory_times: list[tuple[str, int]] = []

    def run(self) -> None:
        """Unpack everything."""
        for entry in self._reader:
            try:
                self._take(entry)
            except OSError as exc:
                if exc.errno in _STORAGE_FAULTS:
                    raise failure_at(entry.name, exc) from exc
                why = os.strerror(exc.errno or errno.EIO).lower()
                raise CopyError(f"{entry.name[:200]!r}: {why}") from exc
        for path, mtime_ns in reversed(self._directory_times):
            with contextlib.suppress(OSError), self._opened(path) as fd:
                _set_time(fd, mtime_ns)

    def _take(self, entry: Entry) -> None:
        parent, name = self._split(entry.name)
        if not name:
            return  # the directory itself stays as it is
        if self._options.owner is not None:
            entry.uid, entry.gid = self._options.owner
        if self._options.identities is not None:
            entry.uid, entry.gid = self._outside(self._options.identities, entry)
        with self._opened(parent) as parent_fd:
            self._check_kind(entry, parent_fd, name)
            if entry.kind == DIRECTORY:
                self._directory(entry, parent_fd, parent, name)
            elif entry.kind == HARD_LINK:
                self._hard_link(entry, parent_fd, name)
            elif entry.kind in _KINDS:
                _clear(parent_fd, name)
                self._make(entry, parent_fd, name)
            else:
                raise CopyError(f"unhandled tar header type {entry.kind}")

    @staticmethod
    def _outside(identities: IdentityMaps, entry: Entry) -> tuple[int, int]:
        try:
            return identities.outside(entry.uid, entry.gid)
        except InvalidArgumentError as exc:
            raise CopyError(f"{entry.name[:200]!r}: {exc}") from exc

    def _split(self, name: str) -> tuple[str, str]:
        if self._options.rename is not None:
            name = _renamed(name, *self._options.rename)
        try:
            return split_name(name)
        except InvalidLayerError as exc:
            raise CopyError(f'"{name[:200]}" is outside of "{self._path}"') from exc

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """Give a directory below the target, made if it is missing; closed at the end."""
        fd = ensure_directory(self._root_fd, os.path.join(self._path, path))
        try:
            if is_pseudo(fd):
                raise CopyError(f"{path[:200]!r} is no place for files")
            yield fd
        finally:
            os.close(fd)

    def _check_kind(self, entry: Entry, parent_fd: int, name: str) -> None:
        if not self._options.keeps_kinds:
            return
        try:
            mode = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        shown = posixpath.normpath(f"{self._path}/{entry.name}")
        if stat.S_ISDIR(mode) and entry.kind != DIRECTORY:
            raise CopyError(
                f'cannot overwrite directory "{shown}" with non-directory "{self._path}"'
            )
        if not stat.S_ISDIR(mode) and entry.kind == DIRECTORY:
            raise CopyError(
                f'cannot overwrite non-directory "{shown}" with directory "{self._path}"'
            )

    def _directory(self, entry: Entry, parent_fd: int, parent: str, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                _clear(parent_fd, name)
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        with _looked_up(parent_fd, name, entry) as fd:
            _set_attributes(fd, entry)
        path = f"{parent}/{name}" if parent else name
        self._directory_times.append((path, entry.mtime_ns))

    def _hard_link(self, entry: Entry, parent_fd: int, name: str) -> None:
        source_parent, source = self._split(entry.link)
        if not source:
            raise CopyError(f"{entry.name[:200]!r}: link without a target")
        with self._opened(source_parent) as source_fd:
            one = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
            with contextlib.suppress(FileNotFoundError):
                other = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
                if os.path.samestat(one, other):
                    return
            _clear(parent_fd, name)
            os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

    def _make(self, entry: Entry, parent_fd: int, name: str) -> None:
        if entry.kind == REGULAR:
            self._regular(entry, parent_fd, name)
            return
        if entry.kind == SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent_fd)
        else:
            device = os.makedev(entry.major, entry.minor) if entry.kind != FIFO else 0
            os.mknod(name, _DEVICES[entry.kind] | 0o600, device, dir_fd=parent_fd)
        with _looked_up(parent_fd, name, entry) as fd:
            _set_attributes(fd, entry)
            _set_time(fd, entry.mtime_ns)

    def _regular(self, entry: Entry, parent_fd: int, name: str) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        try:
            self._reader.copy_file(fd, entry)
            _set_attributes(fd, entry)
            _set_time(fd, entry.mtime_ns)
        finally:
            os.close(fd)


def _renamed(name: str, old: str, new: str) -> str:
    """Replace the start of a name; ``/`` and ``.`` are starts of their own kind."""
    start, slash, rest = name.partition("/")
    if old == "/":
        return f"{new}/{name.lstrip('/')}"
    return f"{new}{slash}{rest}" if start == old else name


@contextlib.contextmanager
def _looked_up(parent_fd: int, name: str, entry: Entry) -> Iterator[int]:
    """Give what was just made as a descriptor that neither follows nor opens it.

    Raises:
        CopyError: somebody has put something of another kind there.

    """
    fd = os.open(name, _LOOK, dir_fd=parent_fd)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != _KINDS[entry.kind]:
            raise CopyError(f"{entry.name[:200]!r} was replaced while it was being made")
        yield fd
    finally:
        os.close(fd)


def _set_attributes(fd: int, entry: Entry) -> None:
    """Set owner, mode and extended attributes of an open object, whatever it is."""
    place = f"/proc/self/fd/{fd}"  # the object itself: calls on descriptors refuse O_PATH
    os.chown(place, entry.uid, entry.gid)
    if entry.kind != SYMLINK:
        os.chmod(place, entry.mode)
    for name, value in entry.xattrs.items():
        if is_steering_attribute(name):
            continue
        try:
            os.setxattr(place, name, value)
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def _set_time(fd: int, mtime_ns: int) -> None:
    os.utime(f"/proc/self/fd/{fd}", ns=(mtime_ns, mtime_ns))


def _clear(parent_fd: int, name: str) -> None:
    """Remove what is in the way, with all below it; nothing is followed."""
    remove_fd = open_at(parent_fd, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT)
    try:
        remove_tree(remove_fd, name)
    finally:
        os.close(remove_fd)
