"""The tar reader beside two others that write every format there is."""

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.images import tar_writer
from cais.images.tar import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry, TarReader
from cais.images.tar_fields import TarError, header_number, pax_records, pax_time_ns
from cais.testing.raw_tar import END, Member, header, tar


def read(archive: bytes, chunk: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or chunk, chunk))

    reader = TarReader(Slow(archive))
    found = []
    for entry in reader:
        content = b""
        while piece := reader.read(1 << 20):
            content += piece
        found.append((entry, content))
    return found


NAME = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=150
).filter(lambda name: not name.endswith("/"))


@pytest.mark.parametrize(
    "form",
    [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT],
    ids=["ustar", "gnu", "pax"],
)
@given(
    name=NAME,
    content=st.binary(max_size=1100),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**31 - 2),
    mtime=st.integers(0, 2**33 - 1),
    chunk=st.sampled_from([1, 511, 512, 513, 1 << 20]),
)
def test_what_pythons_tarfile_writes(
    form: int, name: str, content: bytes, mode: int, uid: int, mtime: int, chunk: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid, info.mtime = len(content), mode, uid, 7, mtime
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        try:
            archive.addfile(info, io.BytesIO(content))
        except ValueError:
            return  # this format cannot hold it
    [(entry, found)] = read(buffer.getvalue(), chunk)
    assert (entry.name, found) == (info.get_info()["name"], content)
    assert (entry.mode, entry.uid, entry.gid) == (mode, uid, 7)
    assert (entry.kind, entry.mtime_ns, entry.size) == (REGULAR, mtime * 10**9, len(content))


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=posix", "--sparse-version=0.0"],
     ["--format=posix", "--sparse-version=0.1"], ["--format=posix", "--sparse-version=1.0"]],
    ids=["old-gnu", "0.0", "0.1", "1.0"],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [0, 1, 3, 30], ids=lambda n: f"{n}-pieces")
def test_what_gnu_tar_writes_of_sparse_files(
    tmp_path: Path, options: list[str], pieces: int
) -> None:
    size = 4_000_000
    with open(tmp_path / "sparse", "wb") as file:
        for number in range(pieces):
            file.seek(number * 120_000)
            file.write(b"%04d" % number * 1024)
        file.truncate(size)
    command = ["tar", "-c", "--sparse", *options, "-C", tmp_path, "sparse"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    reader = TarReader(io.BytesIO(archive))
    [entry] = [unsparse(reader, entry, tmp_path / "copy") for entry in reader]
    assert entry.name == "sparse"
    assert entry.size == size
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "sparse").read_bytes()


def unsparse(reader: TarReader, entry: Entry, path: Path) -> Entry:
    assert entry.sparse is not None
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for offset, length in entry.sparse:
        os.lseek(fd, offset, os.SEEK_SET)
        reader.copy_to(fd, length)
    os.ftruncate(fd, entry.size)
    os.close(fd)
    return entry


def test_kinds_and_links() -> None:
    found = read(
        tar(
            [
                Member("d", kind=b"5"),
                Member("old-directory/", kind=b"\0"),
                Member("old-file", b"x", kind=b"\0"),
                Member("contiguous", b"x", kind=b"7"),
                Member("h", kind=b"1", link="target"),
                Member("s", kind=b"2", link="l" * 300),
                Member("n" * 300, b"long"),
                Member("device", kind=b"3", device=(10, 229)),
            ]
        )
    )
    assert [(entry.name, entry.kind, entry.link) for entry, _ in found[:6]] == [
        ("d", DIRECTORY, ""),
        ("old-directory/", DIRECTORY, ""),
        ("old-file", REGULAR, ""),
        ("contiguous", REGULAR, ""),
        ("h", HARD_LINK, "target"),
        ("s", SYMLINK, "l" * 300),
    ]
    assert found[6][0].name == "n" * 300
    assert (found[7][0].major, found[7][0].minor) == (10, 229)


def test_pax_overrides_and_attributes() -> None:
    pax = {
        "path": "real/name", "uid": "3000000000", "gid": "5", "mtime": "5.25",
        "SCHILY.xattr.user.x": b"\0\xff=\n", "comment": "ignored", "linkpath": "",
    }  # fmt: skip
    [(entry, _)] = read(tar([Member("short", b"", pax=pax)]))
    assert entry.name == "real/name"
    assert (entry.uid, entry.gid, entry.mtime_ns) == (3_000_000_000, 5, 5_250_000_000)
    assert entry.xattrs == {"user.x": b"\0\xff=\n"}


def test_global_headers_are_ignored_as_docker_ignores_them() -> None:
    record = b"13 path=evil\n"
    archive = header(b"g", b"g", len(record)) + record.ljust(512, b"\0") + tar([Member("mine")])
    assert [entry.name for entry, _ in read(archive)] == ["mine"]


def test_names_that_are_not_utf_8_survive() -> None:
    [(entry, _)] = read(tar([Member(b"\xff\xfe")]))
    assert os.fsencode(entry.name) == b"\xff\xfe"


def test_ustar_prefix_belongs_to_posix_headers_alone() -> None:
    block = bytearray(header(b"name", b"0", 0))
    block[345:351] = b"prefix"
    for magic, name in ((b"ustar\x0000", "prefix/name"), (b"ustar  \0", "name")):
        block[257:265] = magic
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        [(entry, _)] = read(bytes(block) + END)
        assert entry.name == name


@pytest.mark.parametrize("archive", [b"", END, bytes(512), bytes(10240)])
def test_archives_of_nothing(archive: bytes) -> None:
    assert read(archive) == []


def test_an_archive_without_end_marker() -> None:
    assert len(read(tar([Member("a", b"x"), Member("b")], end=b""))) == 2


def test_signed_checksums_of_historic_writers() -> None:
    block = bytearray(header("\u00e4\u00e4".encode(), b"0", 0))
    block[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in block)
    block[148:156] = b"%06o\0 " % signed
    assert len(read(bytes(block) + END)) == 1


@given(st.binary(max_size=2048))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(TarError):
        read(content)


@given(st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    archive = bytearray(
        tar([Member("f", b"xyz", pax={"mtime": "1.5"}), Member("l", kind=b"2", link="f")])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TarError):
        read(bytes(archive))


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"0000644\0", 0o644), (b"    644 ", 0o644), (b"00006440", 0o6440), (b"       \0", 0),
        (b"\0" * 8, 0), (b"644\0junk", 0o644), (b"\x80" + b"\0" * 6 + b"\x05", 5),
        (b"\xff" * 8, -1), (b"\xff" * 7 + b"\xfe", -2), (b"\x80\0\0\0\xff\xff\xff\xff", 2**32 - 1),
    ],
)  # fmt: skip
def test_numbers(field: bytes, number: int) -> None:
    assert header_number(field, "x") == number


@pytest.mark.parametrize(
    "field", [b"0x1\0\0\0\0\0", b"8\0\0\0\0\0\0\0", b"+1\0\0\0\0\0\0", b"1_1\0    "]
)
def test_what_is_no_number(field: bytes) -> None:
    with pytest.raises(TarError, match="malformed size"):
        header_number(field, "size")


def test_pax_details() -> None:
    assert pax_records(b"8 a=xy\n\n"[:7].replace(b"8", b"7")) == {"a": b"xy"}
    assert pax_records(b"6 a=x\n6 a=y\n") == {"a": b"y"}
    assert pax_records(b"8 a=b=c\n") == {"a": b"b=c"}
    assert pax_time_ns(b"1.0000000019") == 1_000_000_001
    assert pax_time_ns(b"-0.5") == -500_000_000


def test_what_we_write_is_what_others_read() -> None:
    archive = (
        tar_writer.directory("dir", 0o711)
        + b"".join(tar_writer.file("dir/file", b"content"))
        + tar_writer.header("link", kind=SYMLINK, link="dir/file", mtime=99)
        + tar_writer.END
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as other:
        assert [(m.name, m.mode, m.mtime) for m in other] == [
            ("dir", 0o711, 0), ("dir/file", 0o644, 0), ("link", 0o644, 99),
        ]  # fmt: skip
        assert other.extractfile("dir/file").read() == b"content"  # type: ignore[union-attr]
    assert [entry.name for entry, _ in read(archive)] == ["dir/", "dir/file", "link"]


def test_sizes_beyond_octal_are_written_and_read() -> None:
    size = 1 << 40
    block = tar_writer.header("big", size)
    assert header_number(block[124:136], "size") == size
    assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == size
