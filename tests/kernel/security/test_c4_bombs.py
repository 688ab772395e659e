"""SECURITY.md C4: small archives that want much memory, disk or time are refused early."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard

from cais.errors import ExhaustedError, InvalidArgumentError
from cais.images.compression import CompressionError, open_decompressed
from cais.images.tar import TarReader
from cais.images.tar_fields import TarError
from cais.images.unpack import Limits
from cais.snapshots.snapshotter import Layer
from cais.testing.isolation import isolated
from cais.testing.raw_tar import END, Member, header, member_bytes, pax_record, tar
from cais.testing.unpacking import apply_layer

MIB = 1024 * 1024
ZEROS = bytes(MIB)


class Stream:
    """An archive made up while it is read, so that a test is never as large as its subject."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = (chunk for chunk in chunks if chunk)
        self._rest = b""

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk


def unpack(root: Path, archive: bytes | Stream, **limits: int) -> None:
    source = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    apply_layer(source, Layer(os.fspath(root), ()), limits=Limits(**limits))


def big_file(size: int) -> Iterator[bytes]:
    yield header(b"big", b"0", size)
    for _ in range(size // MIB):
        yield ZEROS
    yield END


def many_files(size: int) -> Iterator[bytes]:
    for number in range(size // MIB):
        yield header(b"f%d" % number, b"0", MIB)
        yield ZEROS
    yield END


def compressed(name: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    compressor = {
        "gzip": lambda: zlib.compressobj(1, wbits=31),
        "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
        "xz": lambda: lzma.LZMACompressor(preset=0),
        "bzip2": lambda: bz2.BZ2Compressor(1),
    }[name]()
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


@pytest.mark.parametrize("files", [big_file, many_files])
@pytest.mark.parametrize("name", ["gzip", "zstd", "xz"])
def test_a_bomb_ends_at_the_limit_in_little_memory(
    tmp_path: Path, name: str, files: Callable[[int], Iterator[bytes]]
) -> None:
    def body() -> None:
        bomb = Stream(list(compressed(name, files(300 * MIB))))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ExhaustedError, match="larger than"):
            unpack(tmp_path, bomb, size_bytes=80 * MIB)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 * 1024, f"{grown} KiB"
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 80 * MIB

    isolated(body)


def test_a_full_disk_is_not_filled_to_the_last_byte(tmp_path: Path) -> None:
    def body() -> None:
        image, mounted = tmp_path / "disk", tmp_path / "mounted"
        mounted.mkdir()
        image.touch()
        os.truncate(image, 64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
        try:
            root = mounted / "root"
            root.mkdir()
            full = b"\xff" * MIB  # zeros would become holes
            many = (chunk for n in range(200) for chunk in (header(b"f%d" % n, b"0", MIB), full))
            with pytest.raises(ExhaustedError, match="no space left on device"):
                unpack(root, Stream(many))
            free = os.statvfs(mounted)
            assert free.f_bavail * free.f_frsize > MIB // 2  # what is kept free: a 64th
            (mounted / "still").write_bytes(b"works")
        finally:
            subprocess.run(["umount", mounted], check=True)

    isolated(body)


def test_more_entries_than_a_layer_may_have(tmp_path: Path) -> None:
    empty = (member_bytes(Member(f"{n}")) for n in range(5_000_000))
    with pytest.raises(ExhaustedError, match="more than 2000 entries"):
        unpack(tmp_path, Stream(empty), entries=2000)
    assert len(os.listdir(tmp_path)) <= 2000


def test_endless_zeros_after_the_end(tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield END
        while True:
            yield ZEROS

    with pytest.raises(TarError, match="after the end marker"):
        unpack(tmp_path, Stream(endless()))


def with_field(kind: bytes, offset: int, value: bytes) -> bytes:
    block = bytearray(header(b"f", kind, 0))
    block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + END


HUGE = b"\x80" + b"\x7f" * 11
LENGTHS = {
    "time-huge": with_field(b"0", 136, HUGE),
    "time-negative": with_field(b"5", 136, b"\xff\x80" + bytes(10)),
    "device-huge": with_field(b"3", 329, HUGE[:8]),
    "device-negative": with_field(b"4", 337, b"\xff" * 8),
    "sparse-size-huge": with_field(b"S", 483, HUGE),
    "sparse-size-of-20-digits": tar([Member("s", b"", pax={
        "GNU.sparse.size": "9" * 20, "GNU.sparse.map": "0,0"})]),
    "pax-negative": header(b"p", b"x", 0, size=b"\xff" * 12),
    "pax-huge": header(b"p", b"x", 0, size=b"\x80" + b"\xff" * 11),
    "size-negative": header(b"f", b"0", 0, size=b"\xff" * 12),
    "size-huge": header(b"f", b"0", 0, size=b"\x80" + b"\xff" * 11),
    "size-not-octal": header(b"f", b"0", 0, size=b"00000000x99\0"),
    "size-python-underscore": header(b"f", b"0", 0, size=b"0000_000_01\0"),
    "size-with-sign": header(b"f", b"0", 0, size=b"-0000000001\0"),
    "pax-record-longer-than-header": member_bytes(
        Member("f", pax={})
    )[:0] + header(b"p", b"x", 20) + (b"99999 path=x\n" + bytes(7)).ljust(512, b"\0"),
    "pax-record-of-no-length": header(b"p", b"x", 9) + b" path=x\n".ljust(512, b"\0"),
    "pax-record-of-length-zero": header(b"p", b"x", 9) + b"0 path=x\n".ljust(512, b"\0"),
    "pax-record-without-newline": header(b"p", b"x", 9) + b"9 path=xx".ljust(512, b"\0"),
    "pax-size-negative": tar([Member("f", pax={"size": "-1"})]),
    "pax-size-arabic": tar([Member("f", pax={"size": "\u0661"})]),
    "pax-size-5000-digits": tar([Member("f", pax={"size": "1" * 5000})]),
    "pax-uid-huge": tar([Member("f", pax={"uid": "4294967296"})]),
    "pax-mtime-nonsense": tar([Member("f", pax={"mtime": "1e9"})]),
    "pax-at-the-end": member_bytes(Member("", pax={"path": "x"}))[:1024],
    "headers-without-end": b"".join(
        header(b"p", b"x", 13) + b"13 comment=x\n".ljust(512, b"\0") for _ in range(40)
    ),
    "sparse-8-eib": tar([Member("s", b"", pax={
        "GNU.sparse.size": "9223372036854775807", "GNU.sparse.map": "9223372036854775807,0"})]),
    "sparse-map-backwards": tar([Member("s", b"xy", pax={
        "GNU.sparse.size": "10", "GNU.sparse.map": "5,1,0,1"})]),
    "sparse-map-negative": tar([Member("s", b"x", pax={
        "GNU.sparse.size": "10", "GNU.sparse.map": "-5,1"})]),
    "sparse-map-odd": tar([Member("s", b"x", pax={
        "GNU.sparse.size": "10", "GNU.sparse.map": "5"})]),
    "sparse-map-beyond-data": tar([Member("s", b"x", pax={
        "GNU.sparse.size": "1000", "GNU.sparse.map": "0,900"})]),
    "sparse-1.0-without-end": tar([Member("s", b"9" * 512, pax={
        "GNU.sparse.major": "1", "GNU.sparse.realsize": "10"})]),
    "sparse-1.0-many": tar([Member("s", b"99999999\n".ljust(512, b"1"), pax={
        "GNU.sparse.major": "1", "GNU.sparse.realsize": "10"})]),
    "checksum-wrong": b"x" * 512 + END,
    "header-cut": b"x" * 100,
    "data-cut": header(b"f", b"0", 4096) + bytes(512),
    "data-after-zero-block": bytes(512) + header(b"f", b"0", 0) + END,
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        unpack(tmp_path, LENGTHS[name])


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_an_extended_header_of_a_gigabyte_is_not_read(tmp_path: Path, kind: bytes) -> None:
    def endless() -> Iterator[bytes]:
        yield header(b"p", kind, 1 << 30)
        yield ZEROS
        raise AssertionError("read on")

    with pytest.raises(TarError, match="extended header of 1073741824 bytes: the limit is"):
        unpack(tmp_path, Stream(endless()))


def test_a_sparse_map_has_a_limit() -> None:
    blocks = [bytes(504) + b"\x01" + bytes(7)] * 10
    full = b"".join(b"%011o\0%011o\0" % (2 * n, 1) for n in range(21)) + b"\x01" + bytes(7)
    first = bytearray(header(b"s", b"S", 0))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    for extension in (blocks, [full] * 4000):
        with pytest.raises(TarError):
            list(TarReader(io.BytesIO(bytes(first) + b"".join(extension))))


def zstd_window(log2: int) -> bytes:
    """A frame whose header asks for a window of 2**log2 bytes."""
    return b"\x28\xb5\x2f\xfd" + bytes([0x00, (log2 - 10) << 3]) + b"\x01\x00\x00"


def xz_with_dictionary_of_4_gib() -> bytes:
    block = bytes([0x02, 0x00, 0x21, 0x01, 40])  # size, flags, LZMA2, one property byte: 4 GiB - 1
    block = block.ljust(8, b"\0")
    flags = b"\x00\x01"
    return (
        b"\xfd7zXZ\x00" + flags + struct.pack("<I", zlib.crc32(flags))
        + block + struct.pack("<I", zlib.crc32(block)) + b"\x01\x00\x00x" + bytes(100)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (zstd_window(31), "zstd"),
        (xz_with_dictionary_of_4_gib(), "Memory usage limit"),
        (gzip.compress(b"x" * 1000)[:-9], "ends early"),
        (lzma.compress(b"x" * 1000)[:-9], "ends early"),
        (bz2.compress(b"x" * 1000)[:-9], "ends early"),
        (gzip.compress(b"x" * 1000) + b"garbage", "gzip"),
        (gzip.compress(b"x" * 1000)[:-8] + bytes(8), "gzip"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
    ],
)
def test_streams_a_decoder_must_refuse(archive: bytes, why: str) -> None:
    with pytest.raises(CompressionError, match=why):
        read_all(open_decompressed(io.BytesIO(archive))[0].read)


def test_a_window_of_128_mib_is_taken() -> None:
    assert read_all(open_decompressed(io.BytesIO(zstd_window(27)))[0].read) == b""


def test_members_one_after_the_other_and_padding_are_taken() -> None:
    for pack in (gzip.compress, bz2.compress, lzma.compress, zstandard.compress):
        stream = io.BytesIO(pack(b"one ") + pack(b"two"))
        assert read_all(open_decompressed(stream)[0].read) == b"one two"
    padded = io.BytesIO(gzip.compress(b"x") + bytes(100_000))
    assert read_all(open_decompressed(padded)[0].read) == b"x"


def test_a_reader_gives_no_more_than_asked() -> None:
    for name in ("gzip", "zstd", "xz", "bzip2"):
        reader, found = open_decompressed(Stream(list(compressed(name, [ZEROS] * 8))))
        assert found == name
        sizes = [len(chunk) for chunk in iter(lambda: reader.read(1000), b"")]  # noqa: B023
        assert max(sizes) <= 1000
        assert sum(sizes) == 8 * MIB


def test_thousands_of_gzip_members_are_no_recursion() -> None:
    stream = io.BytesIO(gzip.compress(b"") * 20_000 + gzip.compress(b"end"))
    assert read_all(open_decompressed(stream)[0].read) == b"end"


def read_all(read: Callable[[int], bytes]) -> bytes:
    return b"".join(iter(lambda: read(65536), b""))


def test_pax_record_lengths_of_the_kit_are_right() -> None:
    for size in (1, 5, 90, 91, 92, 95, 990, 1000):
        record = pax_record(b"k", b"v" * size)
        assert int(record.split()[0]) == len(record)
