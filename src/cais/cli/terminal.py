"""The user's terminal: raw while a container has it, and its size."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextlib.contextmanager
def raw_mode(terminal_fd: int) -> Iterator[None]:
    """Keep the terminal raw inside the block; its settings come back in every case."""
    before = termios.tcgetattr(terminal_fd)
    try:
        tty.setraw(terminal_fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(terminal_fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def on_resize(terminal_fd: int, notify: Callable[[int, int], None]) -> Iterator[None]:
    """Call ``notify(height, width)`` whenever the window changes, and once to begin with."""

    def report(number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG001
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(terminal_fd)
            notify(size.lines, size.columns)

    before = signal.signal(signal.SIGWINCH, report)
    try:
        report()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def is_terminal(descriptor: int) -> bool:
    """Return whether the descriptor is a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
