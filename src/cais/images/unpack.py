"""Unpack a layer: a tar archive somebody else wrote becomes a directory in overlayfs form.

No name of the archive is ever resolved on the host: parents are opened inside the tree
(``layer_tree``), entries created there (``layer_entries``), whiteouts translated (``whiteouts``).
Absolute names and links mean the image's root. Compare CVE-2025-4517, CVE-2025-47290 and the rows
C1 to C4 of ``SECURITY.md``.

Spec: OCI image-spec 1.1, layer.md "Applying Changesets".
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError
from cais.images.compression import open_decompressed
from cais.images.layer_entries import EntryMaker
from cais.images.layer_names import failure_at, split_name
from cais.images.layer_tree import LayerTree
from cais.images.tar import TarReader
from cais.images.whiteouts import WHITEOUT, Whiteouts
from cais.spec.digest import DiffId, Digest, DigestMismatchError

if TYPE_CHECKING:
    from cais.images.compression import Readable
    from cais.images.tar import Entry
    from cais.snapshots.snapshotter import Layer

_CHECK_SPACE_BYTES = 1024 * 1024
_CHECK_SPACE_ENTRIES = 8192


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
        return _Unpacker(TarReader(source), tree, limits).run()


class _Hashed:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self.hash.update(chunk)
        return chunk


class _Unpacker:
    """One run over one archive."""

    def __init__(self, reader: TarReader, tree: LayerTree, limits: Limits) -> None:
        self._reader = reader
        self._tree = tree
        self._limits = limits
        self._whiteouts = Whiteouts(tree)
        self._maker = EntryMaker(reader, tree, self._whiteouts)

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
