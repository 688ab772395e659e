"""The workers' decoder of gzip takes and refuses what zlib's does, and gives the same bytes."""

import gzip
import io
import random

import pytest

from cais.images.compression import CompressionError, open_decompressed
from cais.images.fast_gzip import FAST_GZIP, HAS_ISAL

pytestmark = pytest.mark.skipif(not HAS_ISAL, reason="there is no isal for this processor")

TEXT = b"".join(b"line %d of some text that compresses\n" % number for number in range(20_000))
NOISE = random.Random(1).randbytes(200_000)
GOOD = gzip.compress(TEXT)


class Drops(io.BytesIO):
    """A stream of which little comes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 7))


def plain_of(packed: bytes, *, is_fast: bool, at_most: int = 65536) -> bytes | None:
    """Return what comes out, None: refused."""
    reader, _ = open_decompressed(io.BytesIO(packed), FAST_GZIP if is_fast else None)
    pieces = []
    try:
        while piece := reader.read(at_most):
            assert len(piece) <= at_most
            pieces.append(piece)
    except CompressionError:
        return None
    return b"".join(pieces)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("at_most", [1000, 65536, 1 << 20])
def test_what_is_whole_comes_out(level: int, at_most: int) -> None:
    plain = TEXT + NOISE + bytes(300_000)
    assert plain_of(gzip.compress(plain, level), is_fast=True, at_most=at_most) == plain


def test_it_may_come_in_drops_and_in_members() -> None:
    packed = gzip.compress(TEXT[:3000]) + gzip.compress(b"") + gzip.compress(NOISE[:3000])
    reader, _ = open_decompressed(Drops(packed + bytes(600)), FAST_GZIP)
    assert b"".join(iter(lambda: reader.read(100), b"")) == TEXT[:3000] + NOISE[:3000]


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], id="checksum"),
        pytest.param(GOOD[:-4] + b"\0\0\0\0", id="length"),
        pytest.param(GOOD[:-3], id="cut at its end"),
        pytest.param(GOOD[:200], id="cut"),
        pytest.param(GOOD[:10], id="a header alone"),
        pytest.param(GOOD + b"garbage", id="followed by garbage"),
        pytest.param(b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 100, id="no deflate"),
    ],
)
def test_what_is_broken_is_refused(packed: bytes) -> None:
    assert plain_of(packed, is_fast=True) is None


def test_the_reason_is_told() -> None:
    reader, _ = open_decompressed(io.BytesIO(GOOD[:-8] + bytes(8)), FAST_GZIP)
    with pytest.raises(CompressionError, match=r"gzip: .*checksum"):
        list(iter(lambda: reader.read(65536), b""))


def test_whatever_happened_to_it_both_agree() -> None:
    originals = [gzip.compress(TEXT[:20_000] + NOISE[:500], level) for level in (0, 1, 9)]
    originals.append(gzip.compress(b"") + gzip.compress(NOISE[:300]))
    verdicts = set()
    for seed in range(1500):
        chance = random.Random(seed)
        packed = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 3)):
            packed[chance.randrange(4 + (chance.random() < 0.9) * (len(packed) - 4))] ^= 1 << (
                chance.randrange(8)
            )
        packed[:4] = b"\x1f\x8b\x08" + bytes([packed[3] & 0x1F])  # ISA-L skips reserved flags
        slow, fast = (plain_of(bytes(packed), is_fast=is_fast) for is_fast in (False, True))
        assert slow == fast, f"seed {seed}"
        verdicts.add(slow is None)
    assert verdicts == {True, False}
