"""gzip in blocks: any reader takes it, and it does not depend on how the stream came."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from cais.images.gzip_stream import compressed

BLOCK = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK + 12345])
def test_any_reader_takes_it(size: int) -> None:
    content = random.Random(size).randbytes(size // 2) * 2 + bytes(size % 2)
    packed = b"".join(compressed([content]))
    assert gzip.decompress(packed) == content
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)  # one member, and nothing behind it
    assert reader.decompress(packed) == content
    assert (reader.eof, reader.unused_data) == (True, b"")


def test_the_same_bytes_however_they_come() -> None:
    content = random.Random(1).randbytes(3 * BLOCK + 5)
    whole = b"".join(compressed([content]))
    for step in (1000, 65536, BLOCK, 2 * BLOCK + 1):
        pieces = [content[at : at + step] for at in range(0, len(content), step)]
        assert b"".join(compressed(pieces)) == whole
    assert whole[4:8] == bytes(4)  # no time


def test_blocks_know_the_one_before() -> None:
    """What repeats across a border is not stored twice."""
    piece = random.Random(2).randbytes(16 * 1024)
    assert len(b"".join(compressed([piece * 640]))) < 200_000
