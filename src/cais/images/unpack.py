"""Unpack a layer: a tar archive somebody else wrote becomes a directory in overlayfs form.

No name of the archive is ever resolved on the host. Parents are opened inside the tree
(``layer_tree``), the last component is created with O_EXCL and O_NOFOLLOW or the like, a hard
link's source is looked up inside the tree and never followed, and what stands in the way is
removed first. Absolute names and links mean the image's root. Compare CVE-2025-4517, CVE-2025-47290
and the rows C1 to C4 of ``SECURITY.md``.

Whiteouts (``.wh.name``, ``.wh..wh..opq``) hide what lower layers have, never what this layer
brings, wherever they stand in the archive.

Spec: OCI image-spec 1.1, layer.md "Applying Changesets" and "Whiteouts".
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError, InternalError, InvalidArgumentError
from cais.images.attributes import set_attributes, set_attributes_at
from cais.images.compression import open_decompressed
from cais.images.layer_tree import (
    LayerTree,
    make_directory,
    make_whiteout,
    set_opaque,
)
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
from cais.linux.filesystem import remove_tree
from cais.spec.digest import DiffId, Digest, DigestMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.images.compression import Readable
    from cais.images.tar import Entry
    from cais.snapshots.snapshotter import Layer

WHITEOUT = ".wh."
WHITEOUT_OPAQUE = ".wh..wh..opq"
_WHITEOUT_META = ".wh..wh."
_DEVICE_TYPES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ARCHIVE_FAULTS = frozenset(
    {
        errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
        errno.EPERM, errno.ENOENT, errno.EFBIG, errno.EMLINK, errno.E2BIG, errno.ERANGE,
        errno.EILSEQ, errno.EOVERFLOW,
    }
)  # fmt: skip
_CHECK_SPACE_BYTES = 1024 * 1024
_CHECK_SPACE_ENTRIES = 8192


class InvalidLayerError(InvalidArgumentError):
    """An entry of the layer cannot be unpacked; the message names it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may cost."""

    size_bytes: int = 1 << 40
    entries: int = 4_000_000
    reserve_bytes: int = 256 * 1024 * 1024
    """Kept free on the file system, or a 64th part of a small one."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A layer that was unpacked."""

    diff_id: DiffId
    size_bytes: int
    """Sum of the sizes of its files, as Docker counts."""


def apply_layer(
    source: Readable,
    layer: Layer,
    *,
    expected: DiffId | None = None,
    is_verified: bool = False,
    limits: Limits | None = None,
) -> Applied:
    """Unpack one layer, plain or compressed, into an active snapshot.

    On failure the snapshot is left half written: the caller removes it.

    Args:
        source: read to its end.
        expected: the digest of the uncompressed archive, checked at the end.
        is_verified: ``source`` is plain and known to be ``expected``: it is not hashed again.

    Raises:
        InvalidArgumentError: TarError, CompressionError, InvalidLayerError.
        DigestMismatchError: not ``expected``.
        ExhaustedError: "no space left on device", or a limit.
        InternalError: the disk failed.

    Privileges: CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_MKNOD, CAP_SETFCAP, and CAP_SYS_ADMIN
    for trusted attributes.

    """
    if expected is not None and is_verified:
        return Applied(expected, _unpack(source, layer, limits or Limits()))
    plain = _Hashed(open_decompressed(source)[0])
    size_bytes = _unpack(plain, layer, limits or Limits())
    diff_id = DiffId(Digest(f"sha256:{plain.hash.hexdigest()}"))
    if expected is not None and diff_id != expected:
        raise DigestMismatchError("layer", expected, diff_id)
    return Applied(diff_id, size_bytes)


def _unpack(source: Readable, layer: Layer, limits: Limits) -> int:
    with LayerTree(layer.path, layer.lowers) as tree:
        unpacker = _Unpacker(TarReader(source), tree, limits)
        unpacker.run()
        return unpacker.size_bytes


class _Hashed:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self.hash.update(chunk)
        return chunk


class _Unpacker:
    def __init__(self, reader: TarReader, tree: LayerTree, limits: Limits) -> None:
        self._reader = reader
        self._tree = tree
        self._limits = limits
        self._root_is_opaque = False
        self._directory_times: list[tuple[str, str, int]] = []
        self.size_bytes = 0
        self._create = {
            REGULAR: self._regular,
            HARD_LINK: self._hard_link,
            SYMLINK: self._symlink,
            CHARACTER: self._special,
            BLOCK_DEVICE: self._special,
            FIFO: self._special,
            DIRECTORY: self._directory,
        }

    def run(self) -> None:
        checked_at = 0
        for count, entry in enumerate(self._reader):
            end = self._reader.position + self._reader.data_left
            if count >= self._limits.entries:
                raise ExhaustedError(f"layer has more than {self._limits.entries} entries")
            if end > self._limits.size_bytes:
                raise ExhaustedError(f"layer is larger than {self._limits.size_bytes} bytes")
            if end > checked_at + _CHECK_SPACE_BYTES or not count % _CHECK_SPACE_ENTRIES:
                checked_at = end
                self._check_space()
            try:
                self._apply(entry)
            except OSError as exc:
                raise _failure(entry.name, exc) from exc
        try:
            self._finish()
        except OSError as exc:
            raise _failure("/", exc) from exc

    def _apply(self, entry: Entry) -> None:
        parent, name = _split(entry.name)
        if WHITEOUT in entry.name and self._whiteout(entry, parent, name):
            return
        if not name:
            self._root(entry)
            return
        create = self._create.get(entry.kind)
        if create is None:
            raise InvalidLayerError(
                f"layer entry {_shown(entry.name)}: unhandled tar header type {entry.kind}"
            )
        create(entry, parent, name)

    def _regular(self, entry: Entry, parent: str, name: str) -> None:
        parent_fd = self._tree.directory(parent)
        try:
            fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(parent, name)
            fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=parent_fd)
        try:
            self._write(entry, fd)
            set_attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.size_bytes += entry.size

    def _write(self, entry: Entry, fd: int) -> None:
        if entry.sparse is None:
            self._reader.copy_to(fd, entry.size)
            return
        for offset, length in entry.sparse:
            os.lseek(fd, offset, os.SEEK_SET)
            self._reader.copy_to(fd, length)
        os.ftruncate(fd, entry.size)

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
            set_opaque(fd)
        set_attributes(fd, entry)
        self._directory_times.append((parent, name, entry.mtime_ns))

    def _symlink(self, entry: Entry, parent: str, name: str) -> None:
        if not entry.link:
            raise InvalidLayerError(f"layer entry {_shown(entry.name)}: link without a target")
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
        source_parent, source = _split(entry.link)
        if not source:
            raise InvalidLayerError(f"layer entry {_shown(entry.name)}: link without a target")
        if (source_parent, source) == (parent, name):
            raise InvalidLayerError(f"layer entry {_shown(entry.name)}: link to itself")
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
        if entry.kind == CHARACTER and device == 0:
            self._hide(parent, name)  # overlayfs cannot show such a node: to it, it is a whiteout
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
            raise InvalidLayerError(f"layer entry {_shown(entry.name)}: the root is a directory")
        set_attributes(self._tree.root_fd, entry)
        self._directory_times.append(("", "", entry.mtime_ns))

    def _whiteout(self, entry: Entry, parent: str, name: str) -> bool:
        """Apply an entry with a reserved name; False: its name only looks like one."""
        if name == WHITEOUT_OPAQUE:
            self._make_opaque(parent)
            return True
        components = [*parent.split("/"), name]
        if any(part.startswith(_WHITEOUT_META) for part in components):
            return True  # bookkeeping of aufs, no part of the image
        if any(part.startswith(WHITEOUT) for part in components[:-1]):
            raise InvalidLayerError(f"layer entry {_shown(entry.name)}: below a whiteout")
        if not name.startswith(WHITEOUT):
            return False
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise InvalidLayerError(f"layer entry {_shown(entry.name)}: whiteout of no name")
        self._hide(parent, hidden)
        return True

    def _hide(self, parent: str, name: str) -> None:
        if not self._tree.has_lowers or not self._tree.exists_below(parent, name):
            return
        parent_fd = self._tree.directory(parent)
        try:
            facts = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            make_whiteout(parent_fd, name)
            self._tree.forget()
            return
        if stat.S_ISDIR(facts.st_mode):  # this layer's own directory stays, alone
            _with_directory(parent_fd, name, set_opaque)

    def _make_opaque(self, path: str) -> None:
        if not path:
            self._root_is_opaque = True
        elif self._tree.has_lowers and self._tree.shows_directory(path):
            set_opaque(self._tree.directory(path))
            self._tree.forget()

    def _clear(self, parent: str, name: str) -> int:
        """Remove what this layer has at ``name`` already; return the parent again."""
        remove_tree(self._tree.directory(parent), name)
        self._tree.forget()
        return self._tree.directory(parent)

    def _finish(self) -> None:
        if self._root_is_opaque and self._tree.has_lowers:
            self._hide_lower_root()
        self._tree.forget()
        for path, facts in self._tree.implicit:
            parent, _, name = path.rpartition("/")
            self._set_time(parent, name, facts.st_mtime_ns)
        for parent, name, mtime_ns in self._directory_times:
            self._set_time(parent, name, mtime_ns)

    def _hide_lower_root(self) -> None:
        """Overlayfs merges roots whatever their attributes say: hide each name instead."""
        for name in set(self._tree.lower_names()):
            self._hide("", name)

    def _set_time(self, parent: str, name: str, mtime_ns: int) -> None:
        try:
            if name:
                parent_fd = self._tree.directory(parent)
                facts = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    times = (mtime_ns, mtime_ns)
                    os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)
            else:
                os.utime(self._tree.root_fd, ns=(mtime_ns, mtime_ns))
        except FileNotFoundError:
            return  # replaced by a later entry

    def _check_space(self) -> None:
        """Refuse a member before it is written when the disk has no room for it."""
        facts = os.fstatvfs(self._tree.root_fd)
        reserve = min(self._limits.reserve_bytes, facts.f_blocks * facts.f_frsize // 64)
        if facts.f_bavail * facts.f_frsize < reserve + self._reader.data_left:
            raise ExhaustedError(f"no space left on device: {reserve} bytes are kept free")
        if facts.f_files and facts.f_favail == 0:
            raise ExhaustedError("no space left on device: no inodes")


def _split(name: str) -> tuple[str, str]:
    """Clean a name of the archive: its directory and last component, both inside the root.

    Raises:
        InvalidLayerError: a relative name that leads out of the archive.

    """
    components: list[str] = []
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            components.append(part)
        elif components:
            components.pop()
        elif not name.startswith("/"):
            raise InvalidLayerError(f"layer entry {_shown(name)}: leads out of the archive")
    if not components:
        return "", ""
    return "/".join(components[:-1]), components[-1]


def _with_directory(parent_fd: int, name: str, action: Callable[[int], None]) -> None:
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        action(fd)
    finally:
        os.close(fd)


def _is_same_file(source_fd: int, source: str, target_fd: int, target: str) -> bool:
    one = os.stat(source, dir_fd=source_fd, follow_symlinks=False)
    other = os.stat(target, dir_fd=target_fd, follow_symlinks=False)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _failure(name: str, exc: OSError) -> Exception:
    step = f"layer entry {_shown(name)}: {exc.strerror}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExhaustedError(f"{step.lower()}")
    if exc.errno in _ARCHIVE_FAULTS:
        return InvalidLayerError(step)
    return InternalError(step)


def _shown(name: str) -> str:
    return repr(name[:200])
