"""Guests booted by one of the two runners, their consoles shown as the test's own output."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def run_guest(runner: ModuleType, *arguments: str, timeout_s: float) -> str:
    """Run pytest with ``arguments`` in the runner's guest; return what it wrote, all passed.

    Blocks: until the guest has ended, or been ended after ``timeout_s``.
    """
    return run_guests(runner, [arguments], timeout_s=timeout_s)[0]


def run_guests(
    runner: ModuleType, commands: Sequence[Sequence[str]], *, timeout_s: float
) -> list[str]:
    """Run a guest for each of ``commands``, side by side; return what they wrote, all passed.

    Blocks: until the last guest has ended, or been ended after ``timeout_s``.
    """
    assert runner.__file__ is not None
    deadline = time.monotonic() + timeout_s
    with ExitStack() as stack:
        consoles = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
        guests = []
        for words, console in zip(commands, consoles, strict=True):
            guest = subprocess.Popen(
                [sys.executable, runner.__file__, *words],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
            stack.callback(_end, guest)
            guests.append(guest)
        try:
            codes = [guest.wait(max(0, deadline - time.monotonic())) for guest in guests]
        finally:
            outputs = [_text(console) for console in consoles]
            sys.stdout.write("\n".join(outputs))
    assert codes == [0] * len(codes), "failures in the guest: its console is shown below"
    assert all(" passed" in output for output in outputs)
    return outputs


def _end(guest: subprocess.Popen[bytes]) -> None:
    if guest.poll() is None:
        guest.terminate()  # it ends its machine
        guest.wait()


def _text(console: BinaryIO) -> str:
    console.seek(0)
    return console.read().decode(errors="replace")
