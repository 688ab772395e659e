"""A program on a terminal of its own, driven as a person would: type, wait for text, resize."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

from cais.testing.isolation import PATIENCE


class ExpectationError(AssertionError):
    """What was waited for did not come; the text holds all the program wrote."""


class PseudoTerminal:
    """Runs ``command`` on a new terminal; a context manager that kills it in the end."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.transcript = ""
        self._searched = 0
        self._status: int | None = None
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            try:
                os.execvpe(command[0], list(command), {**environment, "TERM": "xterm"})
            finally:
                os._exit(127)
        self.resize(rows, columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window; the program is told by SIGWINCH."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        """Type ``text``."""
        os.write(self._fd, text.encode())

    def expect(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """Wait for a regular expression in what was written since the last match.

        Raises:
            ExpectationError: it did not come in time, or the program ended first.

        """
        deadline = time.monotonic() + timeout_s * PATIENCE
        while not (match := re.search(pattern, self.transcript[self._searched :])):
            if not self._read(deadline):
                raise ExpectationError(f"no {pattern!r} in:\n{self.transcript}")
        self._searched += match.end()
        return match

    def wait(self, timeout_s: float = 60) -> int:
        """Read to the end and return the exit status (128 + n for a signal).

        Raises:
            ExpectationError: it did not end in time.

        """
        deadline = time.monotonic() + timeout_s * PATIENCE
        while self._read(deadline):
            pass
        while self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._status = code if code >= 0 else 128 - code
            elif time.monotonic() > deadline:
                raise ExpectationError(f"did not end:\n{self.transcript}")
            else:
                time.sleep(0.005)
        return self._status

    def _read(self, deadline: float) -> bool:
        """Take what there is into the transcript; False at the end or the deadline."""
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: the last descriptor of the other side is closed
            return False
        self.transcript += data.decode(errors="replace")
        return bool(data)
