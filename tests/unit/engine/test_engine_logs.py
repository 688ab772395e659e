# ruff: noqa: ASYNC240 - small files, and nothing else in the loop
"""Reading json-file logs: rotation, tail, times, damage, following."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from cais.engine import watch
from cais.engine.logs import (
    LogFormatter,
    LogReader,
    LogSelection,
    fixed_time,
    parse_entry,
    read_batch,
)
from cais.errors import InvalidArgumentError
from cais.testing.waiting import PATIENCE_S


def line(text: str, stream: str = "stdout", second: int = 0) -> bytes:
    moment = f"2026-01-02T03:04:{second:02d}.5Z"
    return f'{{"log":"{text}\\n","stream":"{stream}","time":"{moment}"}}\n'.encode()


def read(path: Path, **selection: Any) -> bytes:
    chosen = LogSelection(**{"is_framed": False, **selection})
    formatter = LogFormatter(chosen)
    output = b""
    with LogReader(str(path), tail=chosen.tail) as reader:
        while block := read_batch(reader, formatter):
            output += block
    return output


def write_rotated(path: Path, *files: list[int]) -> None:
    """Oldest file first."""
    for number, numbers in enumerate(reversed(files)):
        name = path if number == 0 else path.with_name(f"{path.name}.{number}")
        name.write_bytes(b"".join(line(f"n{one}") for one in numbers))


def test_all_files_oldest_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_rotated(path, [1, 2], [3], [4, 5])
    assert read(path) == b"n1\nn2\nn3\nn4\nn5\n"


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(0, ""), (1, "n5\n"), (2, "n4\nn5\n"), (3, "n3\nn4\nn5\n"), (9, "n1\nn2\nn3\nn4\nn5\n")],
)
def test_tail_reaches_into_older_files(tmp_path: Path, count: int, wanted: str) -> None:
    path = tmp_path / "log"
    write_rotated(path, [1, 2], [3], [4, 5])
    assert read(path, tail=count).decode() == wanted


def test_tail_across_blocks_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_rotated(path, list(range(20000)))
    assert path.stat().st_size > 3 * 256 * 1024
    expected = "".join(f"n{one}\n" for one in range(5000, 20000))
    assert read(path, tail=15000).decode() == expected


def test_no_log_at_all(tmp_path: Path) -> None:
    assert read(tmp_path / "log") == b""
    assert read(tmp_path / "log", tail=3) == b""


def test_frames_and_streams(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("out") + line("err", "stderr"))
    assert read(path, is_framed=True) == b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"
    assert read(path, stdout=False) == b"err\n"


def test_times(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(f"n{one}", second=one) for one in range(5)))
    base = 1767323040_500_000_000  # 2026-01-02T03:04:00.5Z
    assert read(path, since_ns=base + 2 * 10**9) == b"n2\nn3\nn4\n"
    assert read(path, until_ns=base + 10**9) == b"n0\nn1\n"
    assert read(path, tail=1, timestamps=True) == b"2026-01-02T03:04:04.500000000Z n4\n"
    assert fixed_time("2026-01-02T03:04:05Z") == "2026-01-02T03:04:05.000000000Z"


def test_details_are_sorted_and_escaped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        b'{"log":"x\\n","stream":"stdout","attrs":{"b":"2 3","a":"1"},'
        b'"time":"2026-01-02T03:04:05Z"}\n'
    )
    assert read(path, details=True) == b"a=1,b=2+3 x\n"


def test_what_a_crash_left_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        line("one")
        + b'{"log":"cut'
        + line("two")
        + b"\x00\xff garbage\n"
        + line("three")
        + b'{"log":"half'
    )
    assert read(path) == b"one\ntwo\nthree\n"
    assert parse_entry(b'{"log":1}') is None


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = line("late")
    path.write_bytes(line("one") + whole[:20])
    formatter = LogFormatter(LogSelection(is_framed=False))
    with LogReader(str(path)) as reader:
        assert read_batch(reader, formatter) == b"one\n"
        assert read_batch(reader, formatter) is None
        with path.open("ab") as file:
            file.write(whole[20:])
        assert read_batch(reader, formatter) == b"late\n"


def test_reading_goes_on_over_rotations(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("n1"))
    formatter = LogFormatter(LogSelection(is_framed=False))
    with LogReader(str(path)) as reader:
        assert read_batch(reader, formatter) == b"n1\n"
        with path.open("ab") as file:
            file.write(line("n2"))  # written before the rotation, after the end was seen
        for number in (3, 4):
            rotate(path, 5)
            path.write_bytes(line(f"n{number}"))
        output = b""
        while block := read_batch(reader, formatter):
            output += block
        assert output == b"n2\nn3\nn4\n"


def test_one_file_that_is_truncated_at_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("a long line first"))
    formatter = LogFormatter(LogSelection(is_framed=False))
    with LogReader(str(path)) as reader:
        assert read_batch(reader, formatter) == b"a long line first\n"
        path.write_bytes(line("b"))
        assert read_batch(reader, formatter) == b"b\n"


def rotate(path: Path, count: int) -> None:
    for number in range(count - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


@pytest.mark.parametrize("missing", range(4))
def test_no_file_is_missed_in_the_middle_of_a_rotation(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "log"
    write_rotated(path, [1], [2], [3], [4], [5])
    for number in range(4, missing, -1):
        path.with_name(f"log.{number}").rename(path.with_name(f"log.{number + 1}"))
    files = [path, *(path.with_name(f"log.{number}") for number in range(1, 6))]
    files[missing].rename(files[missing + 1])
    assert read(path) == b"n1\nn2\nn3\nn4\nn5\n"
    assert read(path, tail=4) == b"n2\nn3\nn4\nn5\n"


@pytest.mark.parametrize("tail", [None, 5])
def test_files_that_are_renamed_before_they_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int | None
) -> None:
    path = tmp_path / "log"
    write_rotated(path, [1], [2], [3], [4], [5])
    opened: list[str] = []
    really_open = os.open

    def rotate_first(name: str, flags: int) -> int:
        opened.append(name)
        if len(opened) in {1, 3, 5, 7}:
            rotate(path, 20)
            path.write_bytes(b"")
        return really_open(name, flags)

    monkeypatch.setattr(os, "open", rotate_first)
    assert read(path, tail=tail) == b"n1\nn2\nn3\nn4\nn5\n"


def log_path(bench: Any, container_id: str) -> Path:
    """Return a container's log; make its directory, as the shim does for the first entry."""
    path = Path(bench.core.paths.log(container_id))
    path.parent.mkdir(exist_ok=True)
    return path


async def following_began(bench: Any) -> None:
    while not bench.core.watch._followers:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.001)


async def collect(lines: Any, sink: list[bytes]) -> None:
    async for block in lines:
        sink.append(block)  # noqa: PERF401 - what came before a failure counts


async def test_following_loses_nothing_and_ends_with_the_container(bench: Any) -> None:
    container_id = await bench.run(tty=True)
    path = log_path(bench, container_id)
    path.write_bytes(b"")
    _, lines = await bench.engine.streams.logs(container_id, stdout=True, follow=True)
    sink: list[bytes] = []
    following = asyncio.create_task(collect(lines, sink))
    expected = []
    for number in range(2000):
        if number % 500 == 499:
            rotate(path, 9)
        with path.open("ab") as file:
            file.write(line(f"n{number}"))
        expected.append(f"n{number}\n")
        if number % 100 == 0:
            await asyncio.sleep(0.001)
    assert not following.done()
    with path.open("ab") as file:
        file.write(line("last"))
    await bench.end(container_id, 0)
    await asyncio.wait_for(following, PATIENCE_S)
    assert b"".join(sink).decode() == "".join(expected) + "last\n"


async def test_following_ends_though_the_run_ended_before_the_first_read(bench: Any) -> None:
    container_id = await bench.run(tty=True)
    log_path(bench, container_id).write_bytes(line("only"))
    _, lines = await bench.engine.streams.logs(container_id, stdout=True, follow=True)
    await bench.end(container_id, 0)
    sink: list[bytes] = []
    await asyncio.wait_for(collect(lines, sink), PATIENCE_S)
    assert b"".join(sink) == b"only\n"


async def test_a_follower_is_woken_by_a_write(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_HEARTBEAT_S", 3600)
    container_id = await bench.run(tty=True)
    path = log_path(bench, container_id)
    path.write_bytes(line("one"))
    _, lines = await bench.engine.streams.logs(container_id, stdout=True, follow=True, tail=0)
    waiting = asyncio.ensure_future(anext(lines))
    await following_began(bench)
    assert not waiting.done()
    with path.open("ab") as file:
        file.write(line("two"))
    assert await asyncio.wait_for(waiting, PATIENCE_S) == b"two\n"
    await lines.aclose()
    assert bench.core.watch._followers == {}


async def test_a_follower_of_a_silent_container_is_woken_by_its_first_entry(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_HEARTBEAT_S", 3600)
    container_id = await bench.run(tty=True)
    directory = Path(bench.core.paths.container(container_id))
    assert not directory.exists()
    _, lines = await bench.engine.streams.logs(container_id, stdout=True, follow=True)
    waiting = asyncio.ensure_future(anext(lines))
    await following_began(bench)
    log_path(bench, container_id).write_bytes(line("one"))
    assert await asyncio.wait_for(waiting, PATIENCE_S) == b"one\n"
    await lines.aclose()


async def test_a_follower_leaves_no_directory_of_a_container_that_said_nothing(bench: Any) -> None:
    container_id = await bench.run()
    _, lines = await bench.engine.streams.logs(container_id, stdout=True, follow=True)
    following = asyncio.create_task(collect(lines, []))
    await following_began(bench)
    await bench.end(container_id, 0)
    await asyncio.wait_for(following, PATIENCE_S)
    assert not Path(bench.core.paths.container(container_id)).exists()


async def test_following_what_does_not_run_ends_at_the_end(bench: Any) -> None:
    container_id = await bench.create()
    _, lines = await bench.engine.streams.logs(container_id, stdout=True, follow=True)
    assert [block async for block in lines] == []
    with pytest.raises(InvalidArgumentError, match="you must choose at least one stream"):
        await bench.engine.streams.logs(container_id)


def open_files() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # another thread has closed it
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


async def test_descriptors_are_closed(bench: Any) -> None:
    container_id = await bench.run()
    path = log_path(bench, container_id)
    path.write_bytes(line("one"))
    for _ in range(5):
        _, lines = await bench.engine.streams.logs(container_id, stdout=True)
        assert [block async for block in lines]
    assert str(path) not in open_files()
