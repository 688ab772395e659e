"""How failures read: what the daemon said is told apart from what we found ourselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cais.client.response import DaemonAnswer
from cais.errors import CaisError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")
NOT_RUN, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


class InvalidFlagError(InvalidArgumentError):
    """A flag's value has not its form; ``flag`` is written as ``-m, --memory``."""

    exit_code = NOT_RUN

    def __init__(self, flag: str, text: str, why: str) -> None:
        super().__init__(f'invalid argument "{text}" for "{flag}" flag: {why}')


class NoTerminalError(InvalidArgumentError):
    """A terminal is asked for where we have none to give."""

    exit_code = 1

    def __init__(self) -> None:
        super().__init__("the input device is not a TTY")


def read_flag(flag: str, read: Callable[[str], Value], text: str) -> Value:
    """Return ``read(text)``. Raises InvalidFlagError, naming the flag, where that refuses."""
    try:
        return read(text)
    except InvalidArgumentError as error:
        raise InvalidFlagError(flag, text, str(error)) from error


def describe(error: CaisError) -> str:
    """Return the line to print for a failure."""
    return f"Error response from daemon: {error}" if isinstance(error, DaemonAnswer) else str(error)


def exit_code_of(message: str) -> int:
    """Return 127 for a program that is not there, 126 for one that cannot run, else 125."""
    text = message.lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return NOT_FOUND
    if "permission denied" in text or "is a directory" in text:
        return NOT_EXECUTABLE
    return NOT_RUN
