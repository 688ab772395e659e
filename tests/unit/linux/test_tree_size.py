"""What a tree takes, as du says and as its files say."""

import os
import subprocess
from pathlib import Path

from cais.linux.tree_size import tree_size_at


def disk_use(path: Path, *options: str) -> int:
    command = ["du", "-s", "-B1", *options, path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(said.split()[0])


def test_files_links_holes_and_directories_are_counted_as_du_does(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "one").write_bytes(b"x" * 100_000)
    os.link(root / "one", root / "sub" / "two")
    (root / "sub" / "deeper" / "three").write_bytes(b"y" * 10)
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(b"z" * 500_000)
    (root / "link").symlink_to(outside)
    apparent, allocated = tree_size_at(root)
    assert allocated == disk_use(root)
    directories = (root / "sub", root / "sub" / "deeper")
    assert apparent == (
        100_000 + 10 + (1 << 30) + len(str(outside)) + sum(d.stat().st_size for d in directories)
    )


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert tree_size_at(tmp_path / "absent") == (0, 0)
