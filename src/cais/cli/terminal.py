"""The user's terminal: raw while a container has it, its size, the keys that let go of it."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROLS = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse_detach_keys(text: str) -> bytes:
    """Return the bytes ``ctrl-p,ctrl-q`` means; ``b""`` for none.

    Raises:
        InvalidArgumentError: a key that is neither one character nor ``ctrl-`` and one.

    """
    keys = bytearray()
    for name in filter(None, text.split(",")):
        control = name.lower().removeprefix("ctrl-")
        if len(name) == 1:
            keys += name.encode()
        elif len(control) == 1 and control in _CONTROLS and len(name) == 6:
            keys.append(_CONTROLS.index(control))
        else:
            raise InvalidArgumentError(f"invalid detach keys ({text}): unknown key {name!r}")
    return bytes(keys)


class DetachScanner:
    """Finds the detach keys in what is typed, also when they come in parts."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to pass on, and whether the keys are complete (the rest is dropped)."""
        if not self._keys:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = int(byte == self._keys[0])
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False


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
