"""Where ``cais-runtime`` reports: stderr, or with ``--log`` a file that engines read, and stderr.

The lines are those of runc's logger, because engines take a failure's reason from the last one.
"""

from __future__ import annotations

import os
import time

from cais.errors import InvalidArgumentError
from cais.spec import json_text

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+")


class Log:
    """A log that is open from its making to the end of the process."""

    __slots__ = ("_fd", "_is_debug", "_is_json")

    def __init__(self, path: str = "", form: str = "", *, debug: bool = False) -> None:
        """Open ``path``, if one is given; ``form`` is text (or empty) or json.

        Raises:
            InvalidArgumentError: another form, or the file cannot be opened.

        """
        self._is_json = form == "json"
        self._is_debug = debug
        self._fd = 2
        if form not in ("", "text", "json"):
            raise InvalidArgumentError(f"invalid log-format: {form}")
        if path:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            try:
                self._fd = os.open(path, flags, 0o644)
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise InvalidArgumentError(f"open {path}: {reason}") from None

    def failure(self, text: str) -> None:
        """Report what failed; people see it also when the log is a file."""
        self._write("error", text)
        if self._fd != 2:
            _put(2, f"{text}\n")

    def warning(self, text: str) -> None:
        """Report what was done in another way than asked."""
        self._write("warning", text)

    def step(self, text: str) -> None:
        """Report a step, with ``--debug``."""
        if self._is_debug:
            self._write("debug", text)

    def _write(self, level: str, text: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._is_json:
            line = json_text.encode({"level": level, "msg": text, "time": now}, compact=True)
        else:
            line = f'time="{now}" level={level} msg={_quoted(text)}'
        _put(self._fd, f"{line}\n")


def _quoted(text: str) -> str:
    return text if text and not set(text) - _PLAIN else json_text.encode(text)


def _put(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode(errors="surrogateescape"))
    except OSError:
        return  # nobody reads it
