"""docker cp's unpacking while somebody exchanges what it has just made: every moment once."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cais.images.copying import CopyError, CopyOptions, copy_into
from cais.testing.raw_tar import Member, fingerprint, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MEMBERS = {
    "mknod": Member("n", kind=b"6", mode=0o4777, uid=7),
    "mkdir": Member("n", kind=b"5", mode=0o4777, uid=7),
    "symlink": Member("n", kind=b"2", link="x", uid=7),
    "open": Member("n", b"content", mode=0o4777, uid=7),
}


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    path = tmp_path / "sentinel"
    path.mkdir()
    (path / "file").write_text("mine")
    return path


def put(content: bytes, root: Path, path: str = "/", **options: Any) -> None:
    root.mkdir(exist_ok=True)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        copy_into(io.BytesIO(content), fd, path, CopyOptions(**options))
    finally:
        os.close(fd)


def exchanging(call: Callable[..., Any], root: Path, target: Path) -> Callable[..., Any]:
    """Return ``call`` with an attacker who replaces ``n`` right behind it."""

    def attacked(*args: Any, **keywords: Any) -> Any:
        result = call(*args, **keywords)
        if "n" in args:
            path = root / "n"
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
            path.symlink_to(target)
        return result

    return attacked


@pytest.mark.parametrize("call", MEMBERS)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_was_exchanged_is_not_followed(
    tmp_path: Path, sentinel: Path, monkeypatch: pytest.MonkeyPatch, call: str, kind: str
) -> None:
    before, root = fingerprint(sentinel), tmp_path / "root"
    target = sentinel / "file" if kind == "file" else sentinel
    content = tar([MEMBERS[call]])
    monkeypatch.setattr(os, call, exchanging(getattr(os, call), root, target))
    if call in ("open", "symlink"):  # done through its descriptor; a link is there as was wanted
        put(content, root)
    else:
        with pytest.raises(CopyError, match="was replaced while it was being made"):
            put(content, root)
    monkeypatch.undo()
    assert fingerprint(sentinel) == before


@pytest.mark.parametrize("link", ["{}", "{}/", "../../../../../../../../..{}"])
def test_links_on_the_way_stay_in_the_tree(tmp_path: Path, sentinel: Path, link: str) -> None:
    before, root = fingerprint(sentinel), tmp_path / "root"
    root.mkdir()
    (root / "way").symlink_to(link.format(sentinel))
    put(tar([Member("way/file", b"theirs"), Member("way/new", b"theirs")]), root)
    assert fingerprint(sentinel) == before
    assert (root / str(sentinel)[1:] / "new").read_bytes() == b"theirs"


def test_what_is_there_is_replaced_and_directories_are_filled(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("file", "dir/kept"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("old")
    put(
        tar([
            Member("file", b"new", mode=0o600, uid=3, gid=4, mtime=5),
            Member("dir", kind=b"5", mode=0o711, mtime=6), Member("dir/added", b"a"),
            Member("hard", kind=b"1", link="file"), Member("made/for/it", b"m"),
        ]),
        root,
    )  # fmt: skip
    facts = (root / "file").stat()
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o600, 3, 4)
    assert (facts.st_mtime, facts.st_nlink) == (5, 2)
    assert sorted(os.listdir(root / "dir")) == ["added", "kept"]
    assert ((root / "dir").stat().st_mode & 0o7777, (root / "dir").stat().st_mtime) == (0o711, 6)
    assert (root / "made/for/it").read_text() == "m"


def test_owner_and_name_can_be_others(tmp_path: Path) -> None:
    root = tmp_path / "root"
    content = tar([
        Member("old", kind=b"5", uid=9), Member("old/f", b"x", uid=9),
        Member("old/h", kind=b"1", link="old/f"),
    ])  # fmt: skip
    put(content, root, owner=(5, 6), rename=("old", "new"))
    assert sorted(os.listdir(root / "new")) == ["f", "h"]
    assert {(p.stat().st_uid, p.stat().st_gid) for p in root.rglob("*")} == {(5, 6)}


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CopyError, match='is outside of "/d"'):
        put(tar([Member(name, b"x")]), tmp_path / "root", "/d")
    assert not (tmp_path / "out").exists()
