"""Content copied between files: the same bytes, the same holes, on whatever file system."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from cais.linux import file_data

MIB = 1 << 20


def copied(tmp_path: Path, source: Path) -> Path:
    target = tmp_path / "target"
    from_fd = os.open(source, os.O_RDONLY)
    to_fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    file_data.copy_data(from_fd, to_fd)
    os.close(from_fd)
    os.close(to_fd)
    return target


def refuse(code: int) -> object:
    def call(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("text", [b"", b"x", b"text" * 100_000])
def test_the_bytes_are_the_same(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "source").write_bytes(text)
    assert copied(tmp_path, tmp_path / "source").read_bytes() == text


@pytest.mark.parametrize("lacks", [(), ("ioctl",), ("ioctl", "copy_file_range")])
def test_holes_stay_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: tuple[str, ...]
) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for place in (MIB, 5 * MIB):
            file.seek(place)
            file.write(b"data" * 1024)
        file.truncate(9 * MIB)
    if "ioctl" in lacks:
        monkeypatch.setattr(fcntl, "ioctl", refuse(errno.EOPNOTSUPP))
    if "copy_file_range" in lacks:
        monkeypatch.setattr(os, "copy_file_range", refuse(errno.EXDEV))
    target = copied(tmp_path, source)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 16


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"text")
    monkeypatch.setattr(fcntl, "ioctl", refuse(errno.EOPNOTSUPP))
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        copied(tmp_path, tmp_path / "source")
