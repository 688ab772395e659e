"""gzip by several processors, always to the same bytes.

A stream is cut into blocks of a fixed size; each is compressed by itself, with the end of the one
before as its dictionary, and all together are one member that any reader takes. There is no name
and no time in it.

Spec: RFC 1952 (gzip), RFC 1951 (a sync flush ends a block at a byte).
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

_LEVEL = 4
"""Twice as fast as zlib's 6, for two per cent more bytes."""

_BLOCK_BYTES = 1024 * 1024
_DICTIONARY_BYTES = 32 * 1024
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_MOST_THREADS = 4


def compressed(plain: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``plain`` as gzip, a few MiB behind what was read of it."""
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    waiting: deque[Future[bytes]] = deque()
    checksum = size = 0
    before = b""
    yield _HEAD
    with ThreadPoolExecutor(threads, "gzip") as pool:
        for block in _blocks(plain):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
            waiting.append(pool.submit(_compress, block, before))
            before = block[-_DICTIONARY_BYTES:]
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    end = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    yield end + checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _compress(block: bytes, before: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream into blocks of one size; only the last one may be shorter."""
    block = bytearray()
    for piece in pieces:
        block += piece
        while len(block) >= _BLOCK_BYTES:
            yield bytes(block[:_BLOCK_BYTES])
            del block[:_BLOCK_BYTES]
    if block:
        yield bytes(block)
