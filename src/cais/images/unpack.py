"""Unpack a layer: a tar archive somebody else wrote becomes a directory in overlayfs form.

No name of the archive is ever resolved on the host: parents are opened inside the tree
(``layer_tree``), entries created there (``layer_entries``), whiteouts translated (``whiteouts``).
Absolute names and links mean the image's root. Compare CVE-2025-4517, CVE-2025-47290 and the rows
C1 to C4 of ``SECURITY.md``.

The daemon has this done by a confined process (``unpacker``), where there is no other file system
to reach: nothing here, or imported here, may look at /proc or import later.

Spec: OCI image-spec 1.1, layer.md "Applying Changesets".
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from cais.errors import ExhaustedError
from cais.images.compression import open_decompressed
from cais.images.fast_gzip import FAST_GZIP
from cais.images.layer_entries import EntryMaker
from cais.images.layer_names import failure_at, split_name
from cais.images.tar import TarReader
from cais.images.whiteouts import WHITEOUT, Whiteouts

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.images.compression import Readable
    from cais.images.layer_tree import LayerTree
    from cais.images.tar import Entry

_CHECK_SPACE_BYTES = 1024 * 1024
_CHECK_SPACE_ENTRIES = 8192


class Limits(NamedTuple):
    """What one layer may cost."""

    size_bytes: int = 1 << 40
    entries: int = 4_000_000
    reserve_bytes: int = 256 * 1024 * 1024
    """Kept free on the file system, or a 64th part of a small one."""


class Unpacked(NamedTuple):
    """A layer that was unpacked."""

    sha256: str
    """Of the uncompressed archive, in hexadecimal; empty when that was not asked for."""

    size_bytes: int
    """Sum of the sizes of its files, as Docker counts."""

    has_root: bool
    """Whether the archive says what owner and mode the root directory has."""


def unpack(
    source: Readable,
    tree: LayerTree,
    limits: Limits,
    *,
    is_verified: bool,
    tick: Callable[[], None] = lambda: None,
) -> Unpacked:
    """Unpack one layer, plain or compressed, into a tree.

    On failure the tree is left half written: the caller removes it.

    Args:
        source: read to its end.
        tree: borrowed.
        limits: refused beyond.
        is_verified: ``source`` is plain and its digest known: it is not hashed again.
        tick: called often while there is something to do.

    Raises:
        InvalidArgumentError: TarError, CompressionError, InvalidLayerError.
        ExhaustedError: "no space left on device", or a limit.
        InternalError: the disk failed.

    Privileges: CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_MKNOD, CAP_SETFCAP, and CAP_SYS_ADMIN
    for trusted attributes.

    """
    if is_verified:
        plain = _Plain(source, tick)
    else:
        plain = _Hashed(open_decompressed(source, FAST_GZIP)[0], tick)
    unpacker = _Unpacker(TarReader(plain), tree, limits)
    size_bytes = unpacker.run()
    return Unpacked(plain.sha256(), size_bytes, unpacker.has_root)


class _Plain:
    """The uncompressed archive."""

    def __init__(self, source: Readable, tick: Callable[[], None]) -> None:
        self._source = source
        self._tick = tick

    def read(self, size: int) -> bytes:
        self._tick()
        return self._source.read(size)

    def sha256(self) -> str:
        return ""


class _Hashed(_Plain):
    """The same, hashed on its way."""

    def __init__(self, source: Readable, tick: Callable[[], None]) -> None:
        super().__init__(source, tick)
        self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = super().read(size)
        self._hash.update(chunk)
        return chunk

    def sha256(self) -> str:
        return self._hash.hexdigest()


class _Unpacker:
    """One run over one archive."""

    def __init__(self, reader: TarReader, tree: LayerTree, limits: Limits) -> None:
        self._reader = reader
        self._tree = tree
        self._limits = limits
        self._whiteouts = Whiteouts(tree)
        self._maker = EntryMaker(reader, tree, self._whiteouts)

    @property
    def has_root(self) -> bool:
        """Whether the archive listed the root."""
        return self._maker.has_root

    def run(self) -> int:
        """Unpack everything; return the sum of the files' sizes."""
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
                raise failure_at(entry.name, exc) from exc
        try:
            self._finish()
        except OSError as exc:
            raise failure_at("/", exc) from exc
        return self._maker.size_bytes

    def _apply(self, entry: Entry) -> None:
        parent, name = split_name(entry.name)
        if WHITEOUT in entry.name and self._whiteouts.apply(parent, name):
            return
        self._maker.make(entry, parent, name)

    def _finish(self) -> None:
        self._whiteouts.finish()
        self._tree.forget()
        self._tree.set_default_acls()
        for path, facts in self._tree.implicit:
            parent, _, name = path.rpartition("/")
            self._set_time(parent, name, facts.st_mtime_ns)
        for parent, name, mtime_ns in self._maker.directory_times:
            self._set_time(parent, name, mtime_ns)

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
