"""Layers as bytes: headers, what is left out, and that nothing accidental is in them."""

import io
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cais.errors import InvalidArgumentError
from cais.images.compression import open_decompressed
from cais.images.layer_writer import pack_changes, pack_file, pack_tree
from cais.images.tar import CHARACTER, DIRECTORY, REGULAR, SYMLINK, Entry, TarReader
from cais.images.tar_headers import member_header
from cais.images.tar_writer import END, in_blocks
from cais.snapshots.merged import open_stack

FIELDS = ("name", "link", "kind", "mode", "uid", "gid", "mtime_ns", "major", "minor", "xattrs")


def entry(**fields: object) -> Entry:
    made = Entry()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def read_back(header: bytes) -> Entry:
    (found,) = TarReader(open_decompressed(io.BytesIO(header + END))[0])
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "plain", "mode": 0o644},
        {"name": "d/", "kind": DIRECTORY, "mode": 0o1777},
        {"name": "n" * 100},
        {"name": "n" * 101},
        {"name": "deep/" * 200 + "end"},
        {"name": "\u00e4"},
        {"name": os.fsdecode(b"\xff\xfe")},
        {"name": "new\nline=equals"},
        {"name": "l", "kind": SYMLINK, "link": "t" * 100},
        {"name": "l", "kind": SYMLINK, "link": "t" * 101},
        {"name": "owned", "uid": 8**7 - 1, "gid": 8**7},
        {"name": "owned", "uid": 2**32 - 1, "gid": 0},
        {"name": "dev", "kind": CHARACTER, "major": 4095, "minor": 1048575},
        {"name": "t", "mtime_ns": 0},
        {"name": "t", "mtime_ns": 1},
        {"name": "t", "mtime_ns": 1_700_000_000_500_000_000},
        {"name": "t", "mtime_ns": -1},
        {"name": "t", "mtime_ns": -86_400_000_000_000},
        {"name": "t", "mtime_ns": -1_500_000_000},
        {"name": "t", "mtime_ns": 8**11 * 10**9},
        {"name": "x", "xattrs": {"user.a": b"\0\n=\xff", "security.capability": b"\1\0\0\2"}},
        {"name": "x", "xattrs": {"user.a=b": b"1", "user.%3D": b"2", "user.50%": b"3"}},
        {"name": "x", "xattrs": {"user.": b"", "user.%253D=": b"4", "user.%%25": b"5"}},
    ],
)
def test_a_header_is_read_as_it_was_written(fields: dict[str, object]) -> None:
    made = entry(**fields)
    found = read_back(member_header(made))
    assert {name: getattr(found, name) for name in FIELDS} == {
        name: getattr(made, name) for name in FIELDS
    }


def test_a_size_beyond_octal_digits() -> None:
    made = entry(name="big", size=8**11)
    header = member_header(made)
    found = next(iter(TarReader(io.BytesIO(header))))
    assert found.size == 8**11


def test_python_reads_the_headers() -> None:
    made = [
        entry(
            name="d\u00e9j\u00e0/" * 30 + "vu", mtime_ns=1_234_567_890_123_456_789, uid=3_000_000
        ),
        entry(name="x", xattrs={"user.a": b"value"}),
    ]
    archive = b"".join(map(member_header, made)) + END
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        first, second = read.getmembers()
    assert (first.name, first.uid) == (made[0].name, 3_000_000)
    assert first.pax_headers["mtime"] == "1234567890.123456789"
    assert (first.uname, first.gname) == ("", "")
    assert second.pax_headers["SCHILY.xattr.user.a"] == "value"


@pytest.mark.parametrize(
    "fields",
    [{"name": "n" * 4097}, {"name": "l", "kind": SYMLINK, "link": "t" * 4097},
     {"name": "x", "xattrs": {f"user.{n}": bytes(60000) for n in range(20)}}],
)  # fmt: skip
def test_what_no_reader_would_take_is_not_written(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        member_header(entry(**fields))


def layer_of(path: Path) -> bytes:
    with open_stack([str(path)]) as tree:
        return b"".join(pack_changes(tree, None, is_laid_over=False))


def fill(path: Path, order: Callable[[list[str]], list[str]]) -> Path:
    """Make the same files in another order, so that directories and inodes lie otherwise."""
    path.mkdir()
    for name in order(["b", "a", "c-d", "c.d", "cd"]):
        (path / name).mkdir()
        (path / name / "file").write_text(name)
        os.link(path / name / "file", path / f"{name}-link")
    for found in [*path.rglob("*"), path]:
        os.utime(found, ns=(7, 1_000_000_007), follow_symlinks=False)
    return path


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    one = layer_of(fill(tmp_path / "one", sorted))
    other = layer_of(fill(tmp_path / "other", lambda names: sorted(names, reverse=True)))
    assert one == other
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        names = archive.getnames()
        links = {each.name: each.linkname for each in archive if each.islnk()}
    assert names[:4] == [".", "a", "a/file", "a-link"]
    assert links["a-link"] == "a/file"


def test_an_empty_tree_is_an_empty_layer(tmp_path: Path) -> None:
    assert not layer_of(tmp_path)
    with open_stack([str(tmp_path)]) as tree:
        assert not b"".join(pack_changes(tree, tree, is_laid_over=False))
        assert b"".join(pack_tree(tree)) == END


def test_sockets_are_left_out_and_nothing_is_opened(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        os.mkfifo(tmp_path / "fifo")  # opening it would wait for ever
        with tarfile.open(fileobj=io.BytesIO(layer_of(tmp_path))) as archive:
            assert archive.getnames() == [".", "fifo"]


def test_reserved_names_are_refused_in_layers_alone(tmp_path: Path) -> None:
    (tmp_path / ".wh.x").touch()
    with pytest.raises(InvalidArgumentError, match=r"begins with \.wh\."):
        layer_of(tmp_path)
    with open_stack([str(tmp_path)]) as tree:
        archive = b"".join(pack_tree(tree, "top"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        assert read.getnames() == ["top", "top/.wh.x"]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 65536, 3_000_000])
def test_holes_are_written_as_zeros_and_come_back_as_holes(tmp_path: Path, size: int) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(size)
        if size > 100:
            file.seek(size - 50)
            file.write(b"data")
    os.utime(tmp_path / "sparse", (1, 1))  # a fraction would need another header
    with open_stack([str(tmp_path)]) as tree:
        archive = b"".join(pack_file(tree, "sparse", "named"))
    assert len(archive) == 512 + -(-size // 512) * 512 + 1024
    reader = TarReader(io.BytesIO(archive))
    found = next(iter(reader))
    assert (found.name, found.size) == ("named", size)
    with (tmp_path / "copy").open("wb") as file:
        reader.copy_file(file.fileno(), found)
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "sparse").read_bytes()
    if size > 1_000_000:
        assert (tmp_path / "copy").stat().st_blocks * 512 < size // 2


def test_a_file_that_shrinks_is_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(b"x" * 3_000_000)
    with open_stack([str(tmp_path)]) as tree:
        pieces = pack_file(tree, "shrinking")
        archive = next(pieces) + next(pieces)
        os.truncate(path, 10)
        archive += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(archive)) as read:
        member = read.extractfile("shrinking")
        assert member is not None
        assert len(member.read()) == 3_000_000


def test_pieces_are_joined() -> None:
    pieces = [b"a" * 400_000] * 6 + [b"end"]
    blocks = list(in_blocks(iter(pieces)))
    assert b"".join(blocks) == b"".join(pieces)
    assert [len(block) for block in blocks] == [1_200_000, 1_200_000, 3]


def test_a_regular_file_has_the_right_kind() -> None:
    assert read_back(member_header(entry(name="f"))).kind == REGULAR
