"""Rotation, mending and full disks of the log file."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from cais.shim.logs import ContainerLog, LogFile


def entry(number: int, width: int = 10) -> bytes:
    return json.dumps({"n": f"{number:0{width}d}"}).encode() + b"\n"


def numbers(directory: Path) -> list[int]:
    """Return what a reader of all files finds, oldest first."""
    files = sorted(directory.glob("log*"), key=lambda path: -int(path.suffix[1:] or 0))
    lines = b"".join(path.read_bytes() for path in files).splitlines()
    return [int(json.loads(line)["n"]) for line in lines]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_rotation_at_every_offset_loses_nothing(tmp_path: Path, batch: int) -> None:
    size = len(entry(0))
    for max_size in range(1, 3 * size + 2):
        directory = tmp_path / f"{batch}-{max_size}"
        directory.mkdir()
        log = LogFile(str(directory / "log"), max_size=max_size, max_file=40)
        for start in range(0, 30, batch):
            log.write(b"".join(entry(n) for n in range(start, min(30, start + batch))))
        log.close()
        assert numbers(directory) == list(range(30))
        # As in Docker: full once the limit is reached, never more than one entry beyond it.
        sizes = [path.stat().st_size for path in directory.glob("log.*")]
        assert all(max_size <= each < max_size + size for each in sizes)


def test_only_the_newest_files_are_kept(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=3 * len(entry(0)), max_file=3)
    for number in range(20):
        log.write(entry(number))
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert numbers(tmp_path) == list(range(12, 20))


def test_a_single_file_starts_over(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=2 * len(entry(0)), max_file=1)
    for number in range(5):
        log.write(entry(number))
    log.close()
    assert numbers(tmp_path) == [4]


def test_without_a_limit_one_file_grows_and_is_continued(tmp_path: Path) -> None:
    for start in (0, 50):
        log = LogFile(str(tmp_path / "log"), max_size=None, max_file=5)
        log.write(b"".join(entry(n) for n in range(start, start + 50)))
        log.close()
    assert numbers(tmp_path) == list(range(100))
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("tail", [b'{"log":"half', b"x" * 100])
def test_an_entry_cut_off_by_a_crash_is_removed(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / "log").write_bytes(entry(0) + tail)
    log = LogFile(str(tmp_path / "log"), max_size=None, max_file=5)
    log.write(entry(1))
    log.close()
    assert numbers(tmp_path) == [0, 1]


def test_a_reader_keeps_the_file_it_has_open(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=len(entry(0)), max_file=3)
    log.write(entry(0))
    with open(tmp_path / "log", "rb") as reader:
        log.write(entry(1))
        assert reader.read() == entry(0)
    log.close()


class FullDisk:
    """Stands in for os.write: takes ``room`` bytes, then refuses."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data)[: self.room]
        self.room -= len(part)
        return real_write(fd, part)


real_write = os.write


def test_a_full_disk_drops_and_counts_and_leaves_whole_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(str(tmp_path / "log"), max_size=None, max_file=5)
    log.write(entry(0))
    monkeypatch.setattr(os, "write", FullDisk(room=len(entry(0)) + 5))
    log.write(entry(1) + entry(2) + entry(3))
    log.write(entry(4))
    assert log.dropped == 4
    monkeypatch.setattr(os, "write", real_write)
    log.write(entry(5))
    log.close()
    assert numbers(tmp_path) == [0, 5]


def test_a_place_that_vanished_does_not_raise(tmp_path: Path) -> None:
    directory = tmp_path / "gone" / "container"
    directory.parent.mkdir()
    log = LogFile(str(directory / "log"), max_size=1, max_file=2)
    log.write(entry(0))
    shutil.rmtree(directory.parent)
    log.write(entry(1))
    log.write(entry(2) + entry(3))
    assert log.dropped == 3
    directory.parent.mkdir()
    log.write(entry(4))
    log.close()
    assert numbers(directory) == [4]


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "target")
    log = LogFile(str(tmp_path / "log"), max_size=None, max_file=1)
    log.write(entry(0))
    assert log.dropped == 1
    assert not (tmp_path / "target").exists()


def test_file_and_directory_are_made_for_the_first_entry(tmp_path: Path) -> None:
    path = tmp_path / "container" / "log"
    log = ContainerLog(str(path), max_size=None, max_file=1, attrs={})
    log.feed("stdout", b"half a line", 0)
    assert not path.parent.exists()
    log.feed("stdout", b" and its end\n", 0)
    assert path.exists()
    log.finish(0)


def test_both_streams_share_the_file_but_not_their_lines(tmp_path: Path) -> None:
    log = ContainerLog(str(tmp_path / "log"), max_size=None, max_file=1, attrs={})
    log.feed("stdout", b"o", 0)
    log.feed("stderr", b"e\n", 0)
    log.feed("stdout", b"ut\nrest", 0)
    log.finish(0)
    log.finish(0)
    entries = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [(each["stream"], each["log"]) for each in entries] == [
        ("stderr", "e\n"),
        ("stdout", "out\n"),
        ("stdout", "rest"),
    ]
