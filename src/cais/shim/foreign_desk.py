"""The directory of one command of a foreign runtime: what it is given and what it leaves.

    <root>/commands/<n>/log            what the runtime says of itself, JSON lines
                        stderr         what it says besides
                        pid            the process it made
                        console.sock   where it sends the terminal of that process
                        ...            what it is given

Spec: runc(8): --log, --log-format, --pid-file, --console-socket.
"""

from __future__ import annotations

import array
import json
import os
import socket

from cais.runtime import criu
from cais.runtime.launch import LaunchError
from cais.shim.protocol import with_directory

_LOG_TAIL = 1 << 20
_SOCKET_PATH_LIMIT = 107


class Desk:
    """The directory of one command; a context manager."""

    def __init__(self, path: str, *, is_new: bool = True) -> None:
        """Make it."""
        if is_new:
            os.makedirs(path, 0o700)
        self.path = path
        self._listener: socket.socket | None = None
        self._directory_fd = -1

    def __enter__(self) -> Desk:  # noqa: PYI034 - Self would import typing
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def file(self, name: str) -> str:
        """Return the path of a file here."""
        return f"{self.path}/{name}"

    def listen(self) -> str:
        """Wait for a terminal; return the path of the socket as the runtime may name it."""
        path = self.file("console.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with_directory(path, self._listener.bind)
        self._listener.listen(1)
        self._listener.settimeout(0)
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        self._directory_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/{os.getpid()}/fd/{self._directory_fd}/console.sock"

    def take_terminal(self) -> int:
        """Return the terminal that was sent (owned). LaunchError: none was."""
        assert self._listener is not None
        try:
            with self._listener.accept()[0] as sender:
                sender.settimeout(0)
                space, flags = socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                _, ancillary, _, _ = sender.recvmsg(4096, space, flags)
        except OSError as exc:
            raise LaunchError(f"the runtime sent no terminal: {exc.strerror}") from exc
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if len(fds) == 1 and os.isatty(fds[0]):
            return fds[0]
        for fd in fds:
            os.close(fd)
        raise LaunchError("the runtime sent something that is no terminal")

    def read_pid(self) -> int:
        """Return the process the runtime made. LaunchError: it names none."""
        try:
            with open(self.file("pid"), encoding="ascii") as file:
                return int(file.read(32))
        except (OSError, ValueError) as exc:
            raise LaunchError(f"the runtime names no process: {exc}") from exc

    def explanation(self) -> str:
        """Return the last error the runtime logged, "" if there is none."""
        for name in ("log", "stderr"):
            for line in reversed(_tail(self.file(name)).splitlines()):
                if reason := _reason(line):
                    return _with_criu_reason(reason)
        return ""

    def clear(self) -> None:
        """Delete the directory; idempotent."""
        if self._listener is not None:
            self._listener.close()
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory_fd = -1
        try:
            for name in os.listdir(self.path):
                os.unlink(self.file(name))
            os.rmdir(self.path)
        except FileNotFoundError:
            return


def _reason(line: str) -> str:
    """Return the text of a log line at the level of errors; a line that is no JSON is a text."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(entry, dict) or entry.get("level") not in ("error", "fatal", None):
        return ""
    return str(entry.get("msg", "")).strip()


def _with_criu_reason(said: str) -> str:
    """Put the reason where runc names criu's log: the file may not outlive the failure."""
    head, named, path = said.partition("\nlog file: ")
    if not named:
        return said
    reason = criu.find_reason(_tail(path.strip()))
    return f"{head}: {reason}" if reason and reason not in head else head


def _tail(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        offset = max(0, os.fstat(fd).st_size - _LOG_TAIL)
        return os.pread(fd, _LOG_TAIL, offset).decode(errors="replace")
    finally:
        os.close(fd)
