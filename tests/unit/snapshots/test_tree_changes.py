"""What was changed in a copy of a tree is found, whatever was done to hide it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cais.snapshots.changes import ChangedTree
from cais.snapshots.merged import MergedTree

LATER = 1 << 62


def found(original: Path, changed: Path, since_ns: int = 0) -> dict[str, bool]:
    """Return the changes: True where something is, False where it is gone."""
    fds = [os.open(path, os.O_RDONLY) for path in (original, changed)]
    try:
        tree = ChangedTree(MergedTree([fds[0]]), fds[1], since_ns)
        return {change.path: change.status is not None for change in tree.changes()}
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    original = tmp_path / "original"
    for name in ("etc/one", "etc/two", "deep/er/file"):
        (original / name).parent.mkdir(parents=True, exist_ok=True)
        (original / name).write_text(name)
    os.symlink("one", original / "etc/link")
    shutil.copytree(original, tmp_path / "changed", symlinks=True)
    for path in (*original.rglob("*"), *(tmp_path / "changed").rglob("*")):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    return original, tmp_path / "changed"


def overwrite(top: Path) -> None:
    (top / "etc/one").write_text("ETC/ONE")
    os.utime(top / "etc/one", ns=(10**18, 10**18))


def replace_directory(top: Path) -> None:
    os.rename(top / "etc", top / "aside")
    os.rename(top / "deep", top / "etc")
    os.rename(top / "aside", top / "deep")


def link_elsewhere(top: Path) -> None:
    (top / "etc/link").unlink()
    os.symlink("two", top / "etc/link")


CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, bool]]] = {
    "nothing": (os.listdir, {}),
    "same size and time": (overwrite, {"/etc/one": True}),
    "new": (lambda top: (top / "etc/new").touch(), {"/etc/new": True}),
    "gone": (lambda top: (top / "etc/two").unlink(), {"/etc/two": False}),
    "directory gone": (lambda top: shutil.rmtree(top / "deep"), {"/deep": False}),
    "mode": (lambda top: (top / "etc").chmod(0o700), {"/etc": True}),
    "mode of the top": (lambda top: top.chmod(0o700), {"": True}),
    "attribute": (
        lambda top: os.setxattr(top / "etc/one", "user.note", b"x"),
        {"/etc/one": True},
    ),
    "a second name": (
        lambda top: os.link(top / "etc/one", top / "etc/again"),
        {"/etc/one": True, "/etc/again": True},
    ),
    "link elsewhere": (link_elsewhere, {"/etc/link": True}),
    "directories exchanged": (
        replace_directory,
        {
            "/etc/er": True,
            "/etc/er/file": True,
            "/etc/one": False,
            "/etc/two": False,
            "/etc/link": False,
            "/deep/one": True,
            "/deep/two": True,
            "/deep/link": True,
            "/deep/er": False,
        },
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found(pair: tuple[Path, Path], name: str) -> None:
    original, changed = pair
    change, expected = CHANGES[name]
    change(changed)
    assert found(original, changed) == expected


def test_what_is_older_than_the_copy_is_not_looked_at(pair: tuple[Path, Path]) -> None:
    original, changed = pair
    overwrite(changed)
    assert found(original, changed, LATER) == {}
    (changed / "etc/two").unlink()
    assert found(original, changed, LATER) == {"/etc/two": False}


def test_a_file_that_came_with_its_directory_is_looked_at(pair: tuple[Path, Path]) -> None:
    """Its own change time says nothing when the directory was moved over another."""
    original, changed = pair
    (changed / "other").mkdir()
    for name in ("one", "two"):
        (changed / "other" / name).write_text(f"ETC/{name}")
        os.utime(changed / "other" / name, ns=(10**18, 10**18))
    since_ns = (changed / "other/two").stat().st_ctime_ns + 1
    shutil.rmtree(changed / "etc")
    while (changed / "other").stat().st_ctime_ns < since_ns:  # the kernel's clock is coarse
        os.rename(changed / "other", changed / "etc")
        os.rename(changed / "etc", changed / "other")
    os.rename(changed / "other", changed / "etc")
    assert found(original, changed, since_ns) == {
        "/etc/one": True,
        "/etc/two": True,
        "/etc/link": False,
    }


def test_the_changes_are_a_layer(pair: tuple[Path, Path], tmp_path: Path) -> None:
    original, changed = pair
    overwrite(changed)
    (changed / "etc/two").unlink()
    (changed / "new/deep").mkdir(parents=True, mode=0o711)
    target = tmp_path / "layer"
    target.mkdir()
    fds = [os.open(path, os.O_RDONLY) for path in (original, changed, target)]
    ChangedTree(MergedTree([fds[0]]), fds[1], 0).write(fds[2])
    with_layer = MergedTree([fds[2], fds[0]])
    assert {entry.name for entry in with_layer.children(with_layer.root())} == {
        *("etc", "deep", "new"),
    }
    etc = with_layer.lookup(with_layer.root(), "etc")
    assert etc is not None
    assert {entry.name for entry in with_layer.children(etc)} == {"one", "link"}
    assert (target / "etc/one").read_text() == "ETC/ONE"
    assert (target / "etc").stat().st_mtime_ns == (changed / "etc").stat().st_mtime_ns
    assert not (target / "deep").exists()
    for fd in fds:
        os.close(fd)
