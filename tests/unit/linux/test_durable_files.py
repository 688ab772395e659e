import os
from pathlib import Path

import pytest

from cais.linux import durable


def test_a_file_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    old = path.stat().st_ino
    umask = os.umask(0o077)
    try:
        durable.write_durably(path, b"new", mode=0o644)
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != old
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _content: bytes) -> None:
        raise OSError(28, "no space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(OSError, match="no space"):
        durable.write_durably(path, b"new", mode=0o600)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_data_reaches_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        steps.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "data")
        real_fsync(fd)

    def rename(*names: str) -> None:
        steps.append("rename")
        real_rename(*names)

    monkeypatch.setattr(durable.os, "fsync", fsync)
    monkeypatch.setattr(durable.os, "rename", rename)
    durable.write_durably(tmp_path / "file", b"x", mode=0o600)
    assert steps == ["data", "rename", "directory"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    os.symlink(tmp_path / "outside", tmp_path / ".file.new")
    with pytest.raises(OSError, match="symbolic links"):
        durable.replace_file(tmp_path / "file", b"new", mode=0o600)
    assert (tmp_path / "outside").read_text() == "kept"
