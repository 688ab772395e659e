"""A streaming reader of tar archives that trusts nothing in them.

Reads ustar, PAX and GNU headers, including all four GNU ways to write sparse files. Every length
is checked before it is used and every loop is bounded; names come out as the archive wrote them,
what they may do is decided by ``unpack``. PAX global headers are ignored, as Docker ignores them.

Spec: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files"; ``SCHILY.xattr.`` as star defined it, "=" and "%" in
an attribute's name as GNU tar writes them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cais.images.tar_fields import (
    TarError,
    checksum_matches,
    header_number,
    header_text,
    pax_integer,
    pax_records,
    pax_time_ns,
    sparse_pairs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.images.compression import Readable

BLOCK = 512
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_CONTIGUOUS, _OLD_REGULAR = ord("7"), 0
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _GNU_SPARSE = b"xgLKS"
_HAS_NO_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO})

PAX_LIMIT_BYTES = 1024 * 1024
NAME_LIMIT_BYTES = 4096
SPARSE_LIMIT = 65536
_TRAILING_LIMIT_BYTES = 64 * 1024 * 1024
_META_LIMIT = 16
_CHUNK = 1024 * 1024
_ZEROS = bytes(BLOCK)
_HOLE_BYTES = 64 * 1024
_HOLE = memoryview(bytes(_HOLE_BYTES))
_XATTR = "SCHILY.xattr."


class Entry:
    """One member: its kind is a type flag, its times are nanoseconds since 1970."""

    __slots__ = (
        "gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "size", "sparse",
        "uid", "xattrs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name = ""
        self.link = ""
        self.kind = REGULAR
        self.mode = self.uid = self.gid = self.mtime_ns = self.major = self.minor = 0
        self.size = 0
        """Of the file as it will be; a sparse one has less data in the archive."""
        self.xattrs: dict[str, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None
        """(offset, length) of each piece of data; None: the data is all of the file."""


class TarReader:
    """Iterate once over the members; ``read``, ``copy_to`` belong to the one yielded last."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = memoryview(b"")
        self._data_left = 0
        self._padding = 0
        self.position = 0
        """Bytes of the archive consumed so far."""

    def __iter__(self) -> Iterator[Entry]:
        """Yield each member; then the source is read to its end.

        Raises:
            TarError: malformed, cut short, or beyond a limit.

        """
        while (entry := self._next_entry()) is not None:
            yield entry
        self._drain()

    @property
    def data_left(self) -> int:
        """Bytes of the member's data that stand in the archive and were not read yet."""
        return self._data_left

    def read(self, size: int) -> memoryview:
        """Return at most ``size`` bytes of the member's data; empty at its end."""
        chunk = self._some(min(size, self._data_left))
        self._data_left -= len(chunk)
        return chunk

    def copy_file(self, fd: int, entry: Entry) -> None:
        """Write all of the member's data into a new file.

        Where a large file holds nothing but zeros a hole is left: archives of images have no
        sparse files, and what was one shall not fill the disk.
        """
        if entry.sparse is not None:
            for offset, length in entry.sparse:
                os.lseek(fd, offset, os.SEEK_SET)
                self.copy_to(fd, length)
        elif entry.size < _HOLE_BYTES:
            self.copy_to(fd, entry.size)
            return
        else:
            self._copy_without_holes(fd)
        os.ftruncate(fd, entry.size)

    def _copy_without_holes(self, fd: int) -> None:
        while chunk := self.read(_HOLE_BYTES):
            if chunk[0] == chunk[-1] == 0 and chunk == _HOLE[: len(chunk)]:
                os.lseek(fd, len(chunk), os.SEEK_CUR)
                continue
            while chunk:
                chunk = chunk[os.write(fd, chunk) :]

    def copy_to(self, fd: int, size: int) -> None:
        """Write the next ``size`` bytes of the member's data at the file's offset."""
        if size > self._data_left:
            raise TarError("sparse map is larger than the data")
        while size:
            chunk = self.read(size)
            size -= len(chunk)
            while chunk:
                chunk = chunk[os.write(fd, chunk) :]

    def _next_entry(self) -> Entry | None:
        pax: dict[str, bytes] = {}
        names: dict[int, str] = {}
        for _ in range(_META_LIMIT):
            self._skip(self._data_left + self._padding)
            self._data_left = self._padding = 0
            header = self._header()
            if header is None:
                if pax or names:
                    raise TarError("archive ends after an extended header")
                return None
            kind = header[156]
            if kind == _PAX:
                pax = pax_records(self._metadata(header, PAX_LIMIT_BYTES))
            elif kind == _PAX_GLOBAL:
                self._metadata(header, PAX_LIMIT_BYTES)
            elif kind in (_LONG_NAME, _LONG_LINK):
                text = self._metadata(header, NAME_LIMIT_BYTES + 1).partition(b"\0")[0]
                names[kind] = os.fsdecode(text)
            else:
                return self._entry(header, pax, names)
        raise TarError("too many extended headers in a row")

    def _header(self) -> bytes | None:
        if not self._fill():
            return None  # many writers leave the end marker out
        header = self._exactly(BLOCK)
        if header == _ZEROS:
            if self._fill() and self._exactly(BLOCK) != _ZEROS:
                raise TarError("data after a zero block")
            return None
        if not checksum_matches(header):
            raise TarError("header checksum does not match: not a tar archive, or a damaged one")
        return header

    def _metadata(self, header: bytes, limit: int) -> bytes:
        size = header_number(header[124:136], "size")
        if not 0 <= size <= limit:
            raise TarError(f"extended header of {size} bytes: the limit is {limit}")
        content = self._exactly(size)
        self._skip(-size % BLOCK)
        return content

    def _entry(self, header: bytes, pax: dict[str, bytes], names: dict[int, str]) -> Entry:
        entry = Entry()
        entry.kind = header[156]
        entry.name = names.get(_LONG_NAME) or _ustar_name(header)
        entry.link = names.get(_LONG_LINK) or header_text(header[157:257])
        entry.mode = header_number(header[100:108], "mode") & 0o7777
        entry.uid = header_number(header[108:116], "uid")
        entry.gid = header_number(header[116:124], "gid")
        entry.size = header_number(header[124:136], "size")
        entry.mtime_ns = header_number(header[136:148], "mtime") * 1_000_000_000
        if entry.kind in (CHARACTER, BLOCK_DEVICE):
            entry.major = header_number(header[329:337], "device number")
            entry.minor = header_number(header[337:345], "device number")
        if pax:
            _apply_pax(entry, pax)
        self._normalize_kind(entry)
        self._begin_data(entry, header, pax)
        _check(entry)
        return entry

    def _normalize_kind(self, entry: Entry) -> None:
        if entry.kind in (_OLD_REGULAR, _CONTIGUOUS):
            entry.kind = REGULAR
        if entry.kind == REGULAR and entry.size == 0 and entry.name.endswith("/"):
            entry.kind = DIRECTORY
        if entry.kind in _HAS_NO_DATA:
            entry.size = 0

    def _begin_data(self, entry: Entry, header: bytes, pax: dict[str, bytes]) -> None:
        if not 0 <= entry.size < 1 << 63:
            raise TarError(f"size {entry.size} is out of range")
        self._data_left = entry.size
        self._padding = -entry.size % BLOCK
        if entry.kind == _GNU_SPARSE:
            entry.kind = REGULAR
            self._gnu_sparse(entry, header)
        elif entry.kind == REGULAR and any(key.startswith("GNU.sparse.") for key in pax):
            self._pax_sparse(entry, pax)

    def _gnu_sparse(self, entry: Entry, header: bytes) -> None:
        pairs = sparse_pairs(header[386:482])
        entry.size = header_number(header[483:495], "real size")
        extended = header[482]
        while extended:
            block = self._exactly(BLOCK)  # stands before the data and does not count as such
            pairs += sparse_pairs(block[:504])
            extended = block[504]
            if len(pairs) > SPARSE_LIMIT:
                raise TarError(f"sparse map of more than {SPARSE_LIMIT} pieces")
        entry.sparse = pairs

    def _pax_sparse(self, entry: Entry, pax: dict[str, bytes]) -> None:
        if name := pax.get("GNU.sparse.name"):
            entry.name = os.fsdecode(name)
        size = pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size")
        if size is None:
            raise TarError("sparse file without its size")
        entry.size = pax_integer(size)
        if pax.get("GNU.sparse.major") == b"1":
            numbers = self._sparse_numbers()
        else:
            numbers = [pax_integer(n) for n in pax.get("GNU.sparse.map", b"").split(b",") if n]
        if len(numbers) % 2 or len(numbers) > 2 * SPARSE_LIMIT:
            raise TarError("malformed sparse map")
        entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))

    def _sparse_numbers(self) -> list[int]:
        """Read the map of format 1.0: decimal lines before the data, padded to a block."""
        lines = self._sparse_lines()
        count = pax_integer(next(lines))
        if count > SPARSE_LIMIT:
            raise TarError(f"sparse map of more than {SPARSE_LIMIT} pieces")
        return [pax_integer(next(lines)) for _ in range(2 * count)]

    def _sparse_lines(self) -> Iterator[bytes]:
        rest = b""
        while True:
            line, newline, rest = rest.partition(b"\n")
            while not newline:
                if self._data_left < BLOCK or len(line) > BLOCK:
                    raise TarError("malformed sparse map")
                self._data_left -= BLOCK
                line, newline, rest = (line + self._exactly(BLOCK)).partition(b"\n")
            yield line

    def _fill(self) -> bool:
        if not self._buffer:
            self._buffer = memoryview(self._source.read(_CHUNK))
        return bool(self._buffer)

    def _some(self, size: int) -> memoryview:
        if size and not self._fill():
            raise TarError("archive is cut short")
        chunk = self._buffer[:size]
        self._buffer = self._buffer[len(chunk) :]
        self.position += len(chunk)
        return chunk

    def _exactly(self, size: int) -> bytes:
        chunk = bytes(self._some(size))
        while len(chunk) < size:
            chunk += self._some(size - len(chunk))
        return chunk

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def _drain(self) -> None:
        end = self.position + _TRAILING_LIMIT_BYTES
        while self._fill():
            self._some(_CHUNK)
            if self.position > end:
                raise TarError(f"more than {_TRAILING_LIMIT_BYTES} bytes after the end marker")


def _ustar_name(header: bytes) -> str:
    name = header_text(header[:100])
    prefix = header_text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _apply_pax(entry: Entry, pax: dict[str, bytes]) -> None:
    if path := pax.get("path"):
        entry.name = os.fsdecode(path)
    if link := pax.get("linkpath"):
        entry.link = os.fsdecode(link)
    if mtime := pax.get("mtime"):
        entry.mtime_ns = pax_time_ns(mtime)
    for key in ("size", "uid", "gid"):
        if value := pax.get(key):
            setattr(entry, key, pax_integer(value))
    for key, value in pax.items():
        if key.startswith(_XATTR):
            name = key.removeprefix(_XATTR)
            entry.xattrs[name.replace("%3D", "=").replace("%25", "%")] = value


def _check(entry: Entry) -> None:
    for text in (entry.name, entry.link):
        if "\0" in text:
            raise TarError("name contains NUL")
        if len(os.fsencode(text)) > NAME_LIMIT_BYTES:
            raise TarError(f"name is longer than {NAME_LIMIT_BYTES} bytes")
    if not (0 <= entry.uid < 1 << 32 and 0 <= entry.gid < 1 << 32):
        raise TarError(f"owner {entry.uid}:{entry.gid} is out of range")
    if not 0 <= entry.size < 1 << 63:
        raise TarError(f"size {entry.size} is out of range")
    if not -(1 << 63) <= entry.mtime_ns // 1_000_000_000 < 1 << 63:
        raise TarError("time is out of range")
    if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):  # Linux's own limits
        raise TarError(f"device {entry.major}:{entry.minor} is out of range")
    end = 0
    for offset, length in entry.sparse or ():
        if offset < end or length < 0 or offset + length > entry.size:
            raise TarError("malformed sparse map")
        end = offset + length
