"""A process that is killed, or whose power is cut, before one chosen call that changes the disk.

The power of an ext4 goes by EXT4_IOC_SHUTDOWN without a flush of its journal: what nobody has
synced is lost, as with a machine that is switched off.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from cais.testing.stopped_calls import DISK_NAMES, run_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = (2).to_bytes(4, "little")
_PR_SET_PDEATHSIG = 1
_UNMOUNT_S = 60


class _CutError(Exception):
    """The moment has come."""


def interrupt(work: Callable[[], object], moment: int, at_moment: Callable[[], None]) -> int:
    """Run ``work`` in a process that ends before its ``moment``-th call; return how many it made.

    Args:
        work: may start threads, and processes that end with it.
        moment: from 1 on; 0: all of it is done.
        at_moment: called then, in the caller's process, before it is killed.

    """
    alive, held = os.pipe()
    count = 0

    def body() -> str:
        if (pid := os.fork()) == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        os.close(held)
        return str(os.waitpid(pid, 0)[1])

    def at_call(_pid: int, _count: int) -> None:
        nonlocal count
        count += 1
        if count == moment:
            at_moment()
            raise _CutError

    with contextlib.suppress(_CutError):
        assert run_stopped(body, at_call, DISK_NAMES) == "0"
    os.close(held)
    assert os.read(alive, 1) == b""  # until every process of it is gone
    os.close(alive)
    return count


def reap_orphans() -> None:
    """Wait for what an interrupted process left to a subreaper."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def moments(count: int, chosen: int) -> list[int]:
    """Choose some of the calls, the first and the last among them."""
    return sorted({1 + (count - 1) * number // (chosen - 1) for number in range(chosen)})


def make_disk(path: Path, size_bytes: int, *options: str) -> None:
    """Make a file with an empty ext4 in it; ``options`` are mkfs's."""
    path.touch()
    os.truncate(path, size_bytes)
    subprocess.run(["mkfs.ext4", "-q", *options, path], check=True)


def cut_power(mounted: Path) -> None:
    """Take the power from the ext4 mounted there: every further call fails, nothing is written."""
    fd = os.open(mounted, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH)
    finally:
        os.close(fd)


@contextlib.contextmanager
def mounted_disk(disk: Path, place: Path) -> Iterator[None]:
    """Mount the file system in a file for the length of the block."""
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield
    finally:
        deadline = time.monotonic() + _UNMOUNT_S
        while subprocess.run(["umount", place], check=False, capture_output=True).returncode:
            assert time.monotonic() < deadline, f"{place} is busy"  # a process is still ending
            time.sleep(0.05)
