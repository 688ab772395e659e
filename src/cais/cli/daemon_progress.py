"""The progress that the daemon tells while it works, as text; on a terminal, lines in place."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from cais.cli.terminal import is_terminal
from cais.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def checked(documents: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield messages. InternalError: the failure they end with."""
    for document in documents:
        message = document.get("error") or (document.get("errorDetail") or {}).get("message")
        if message:
            raise InternalError(message)
        yield document


def print_progress(documents: Iterable[dict[str, Any]]) -> None:
    """Print the text of messages. InternalError: as ``checked``."""
    for document in checked(documents):
        if text := document.get("stream"):
            sys.stdout.write(text)
        elif (status := document.get("status")) and not document.get("progressDetail"):
            print(status)
    sys.stdout.flush()


def show_transfer(documents: Iterable[dict[str, Any]], stream: int, *, shown: bool) -> None:
    """Print a pull's or push's to a descriptor; on a terminal each layer keeps its line.

    Raises:
        InternalError: as ``checked``, also when nothing is shown.

    """
    screen = _Screen(stream) if is_terminal(stream) else None
    for document in checked(documents):
        if not shown or "status" not in document:
            continue
        name, detail = document.get("id", ""), document.get("progress", "")
        text = f"{name}: {document['status']}" if name else document["status"]
        if screen is not None:
            screen.show(name if "progressDetail" in document else "", f"{text} {detail}".rstrip())
        elif not detail:
            os.write(stream, f"{text}\n".encode())


class _Screen:
    """Lines that are written again, counted from the last one."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._places: dict[str, int] = {}
        self._count = 0

    def show(self, name: str, text: str) -> None:
        """Write a line, in the place of the last one of that name; "" is always a new one."""
        if name in self._places:
            up = self._count - self._places[name]
            line = f"\x1b[{up}A\r\x1b[2K{text}\x1b[{up}B\r"
        else:
            if name:
                self._places[name] = self._count
            self._count += 1
            line = f"\x1b[2K{text}\n"
        os.write(self._stream, line.encode())
