"""Decompression in fixed memory: what comes out is bounded by what is asked for.

A kilobyte can unpack to a gigabyte (zstd 32,000:1, xz 6,850:1), and a stream can ask its decoder
for gigabytes of memory. So every reader here gives at most the bytes it is asked for, and a
decoder that wants more than ``MEMORY_LIMIT_BYTES`` is refused.

Spec: RFC 1952 (gzip, concatenated members), RFC 8878 (zstd), the .xz file format, bzip2.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Literal, Protocol

import zstandard

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

Compression = Literal["", "gzip", "zstd", "xz", "bzip2"]

MEMORY_LIMIT_BYTES = 128 * 1024 * 1024
_CHUNK = 256 * 1024
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)
_MAGIC_LENGTH = max(len(magic) for magic, _ in _MAGIC)


class Readable(Protocol):
    """Where bytes come from: an open file, or a queue fed by a request's body."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; empty at the end."""


class CompressionError(InvalidArgumentError):
    """The stream is damaged, ends early, or wants too much memory."""


class Decoder(Protocol):
    """Of one member of a stream; as the ones in ``bz2`` and ``lzma``."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes of what was given so far."""

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the member's end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most ``max_length`` more bytes."""


def detect(head: bytes) -> Compression:
    """Say how a stream that starts with ``head`` is compressed; "" when it is not."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def open_decompressed(
    source: Readable, gzip: Callable[[], Decoder] | None = None
) -> tuple[Readable, Compression]:
    """Return a reader of the plain bytes of ``source``, and how they are compressed.

    Args:
        source: read as far as is asked for.
        gzip: makes the decoder of gzip; it raises zlib.error. None: zlib's.

    """
    head = b""
    while len(head) < _MAGIC_LENGTH and (more := source.read(_MAGIC_LENGTH - len(head))):
        head += more
    compression = detect(head)
    whole = _Prefixed(head, source)
    if not compression:
        return whole, compression
    if compression == "zstd":
        return _Zstd(whole), compression
    decoder = gzip or _Gzip if compression == "gzip" else _DECODERS[compression]
    return _Members(whole, compression, decoder), compression


class _Prefixed:
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._rest.read(size)
        chunk, self._head = self._head[:size], self._head[size:]
        return chunk


class _Zstd:
    def __init__(self, source: Readable) -> None:
        decoder = zstandard.ZstdDecompressor(max_window_size=MEMORY_LIMIT_BYTES)
        self._reader = decoder.stream_reader(source, read_size=_CHUNK, read_across_frames=True)  # type: ignore[arg-type]

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as exc:
            raise CompressionError(f"zstd: {exc}") from exc


class _Gzip:
    """zlib's decoder with the interface of the other two."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._decoder.decompress(self._decoder.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail


_DECODERS: dict[Compression, Callable[[], Decoder]] = {
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_LIMIT_BYTES),
    "bzip2": bz2.BZ2Decompressor,
}


class _Members:
    """Concatenated members of one format; zero bytes may follow the last one."""

    def __init__(
        self, source: Readable, compression: Compression, new: Callable[[], Decoder]
    ) -> None:
        self._source = source
        self._name = compression
        self._new = new
        self._decoder: Decoder | None = new()
        self._pending = b""

    def read(self, size: int) -> bytes:
        try:
            while self._decoder is not None:
                if self._decoder.eof:
                    self._next_member()
                elif plain := self._step(size):
                    return plain
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as exc:
            raise CompressionError(f"{self._name}: {exc}") from exc
        return b""

    def _step(self, size: int) -> bytes:
        assert self._decoder is not None
        data, self._pending = self._pending, b""
        is_cut = False
        if not data and self._decoder.needs_input:
            data = self._source.read(_CHUNK)
            is_cut = not data
        plain = self._decoder.decompress(data, size)  # a decoder may hold output back: ask it first
        if is_cut and not plain and not self._decoder.eof:
            raise CompressionError(f"{self._name}: the stream ends early")
        return plain

    def _next_member(self) -> None:
        assert self._decoder is not None
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest and (more := self._source.read(_CHUNK)):
            rest = more.lstrip(b"\0")
        if not rest:
            self._decoder = None
            return
        self._pending = rest
        self._decoder = self._new()
