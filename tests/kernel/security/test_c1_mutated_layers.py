"""SECURITY.md C1, C4: archives that nobody thought of: those of the kit, damaged at random.

``CAIS_FUZZ_LAYERS=100000`` makes it long; a failure names the seed that repeats it.
"""

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
from pathlib import Path

import zstandard
from evil_layers import ARCHIVES, archive_of, make_precious

from cais.errors import CaisError
from cais.images.unpack import Limits
from cais.snapshots.snapshotter import Layer
from cais.testing.isolation import isolated
from cais.testing.raw_tar import BLOCK, Member, fingerprint, tar
from cais.testing.unpacking import apply_layer

ROUNDS = int(os.environ.get("CAIS_FUZZ_LAYERS", "1500"))
LIMITS = Limits(size_bytes=64 << 20, entries=10_000)
PLAIN = tar(
    [
        Member("./", kind=b"5", mode=0o755),
        Member("a/", kind=b"5", mode=0o755, pax={"mtime": "1.5", "SCHILY.xattr.user.k": "v"}),
        Member("a/" + "long" * 60, b"x" * 700),
        Member("a/link", kind=b"1", link="a/" + "long" * 60),
        Member("b/.wh.c"),
        Member("b/.wh..wh..opq"),
        Member("d", kind=b"4", device=(8, 1)),
        Member("s", b"xy", pax={"GNU.sparse.size": "9", "GNU.sparse.map": "0,1,7,1"}),
    ]
)
PACKERS = (gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress)


def with_checksum(block: bytes) -> bytes:
    fields = bytearray(block)
    fields[148:156] = b" " * 8
    fields[148:156] = b"%06o\0 " % sum(fields)
    return bytes(fields)


def damaged(archive: bytes, chance: random.Random) -> bytes:
    """Change a few blocks; headers get a right checksum again, or they would all be refused."""
    blocks = [archive[at : at + BLOCK] for at in range(0, len(archive), BLOCK)]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(blocks))
        match chance.randrange(6):
            case 0 | 1 | 2:
                block = bytearray(blocks[at])
                for _ in range(chance.randint(1, 8)):
                    field = chance.choice((0, 1, 2, 100, 124, 130, 135, 156, 157, 345, 482, 483))
                    block[min(field, len(block) - 1)] = chance.choice(b"\0./0157SLKxg\x80\xff\n")
                blocks[at] = with_checksum(bytes(block)) if len(block) == BLOCK else bytes(block)
            case 3:
                blocks.insert(at, chance.choice(blocks))
            case 4 if len(blocks) > 1:
                del blocks[at]
            case _:
                other = chance.randrange(len(blocks))
                blocks[at], blocks[other] = blocks[other], blocks[at]
    whole = b"".join(blocks)
    return whole[: chance.randrange(len(whole))] if chance.random() < 0.1 else whole


def packed(archive: bytes, chance: random.Random) -> bytes:
    """Compress some of them, and damage some of these."""
    if chance.random() < 0.7:
        return archive
    content = bytearray(chance.choice(PACKERS)(archive))
    if chance.random() < 0.7:
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def test_a_damaged_archive_is_refused_or_unpacked_inside(tmp_path: Path) -> None:
    def body() -> None:
        sentinel = make_precious(tmp_path / "sentinel")
        lower = tmp_path / "lower"
        (lower / "b").mkdir(parents=True)
        (lower / "b/c").write_text("x")
        (lower / "a").symlink_to(sentinel)
        originals = [PLAIN, *(archive_of(name, sentinel) for name in ARCHIVES)]
        before = fingerprint(sentinel), fingerprint(lower)
        unpacked = 0
        for seed in range(ROUNDS):
            chance = random.Random(seed)
            layer = packed(damaged(chance.choice(originals), chance), chance)
            lowers = (os.fspath(lower),) if chance.random() < 0.5 else ()
            unpacked += survives(tmp_path, layer, lowers, seed)
            assert (fingerprint(sentinel), fingerprint(lower)) == before, f"seed {seed}"
            assert len(os.listdir(tmp_path)) == 2, f"seed {seed}"
        assert unpacked > ROUNDS // 20  # the damage is not such that nothing gets anywhere

    isolated(body, timeout_s=110 if ROUNDS < 10_000 else 36_000)


def survives(place: Path, layer: bytes, lowers: tuple[str, ...], seed: int) -> bool:
    """Unpack one; say whether it was taken."""
    root = place / "root"
    root.mkdir()
    try:
        apply_layer(io.BytesIO(layer), Layer(os.fspath(root), lowers), LIMITS)
    except CaisError:
        return False
    except Exception as exc:
        raise AssertionError(f"seed {seed}: {type(exc).__name__}: {exc}") from exc
    finally:
        shutil.rmtree(root)
    return True
