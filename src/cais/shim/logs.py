"""The log of one container: a file of whole lines, rotated, written by nobody else.

    <path>      being written        <path>.1   the one before        <path>.<max_file - 1>   oldest

As in Docker a file is full when it has reached ``max_size``: the entry that reaches it is its
last, and the next one opens a new file. A reader that holds a file open keeps it through its
renames. A disk that refuses costs lines, which are counted, and never stops a container; the file
then ends with the last entry that fitted. File and directory are made for the first entry: a
container that says nothing costs no block of the disk.
"""

from __future__ import annotations

import contextlib
import os

from cais.shim.lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_TAIL = 128 << 10  # longer than any entry without attributes
_DIRECTORY_MODE = 0o710
_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class LogFile:
    """The file and its rotation. ``write`` takes entries, never bytes of a container."""

    __slots__ = ("_fd", "_max_file", "_max_size", "_path", "_size", "dropped")

    def __init__(self, path: str, *, max_size: int | None, max_file: int) -> None:
        """Continue ``path`` with the first entry; one cut off by a crash is removed then.

        Args:
            path: absolute; its directory is made in one that exists.
            max_size: in bytes; None for no limit.
            max_file: how many files, this one included; at least 1.

        """
        self._path = path
        self._max_size = max_size
        self._max_file = max(1, max_file)
        self.dropped = 0
        self._fd = -1
        self._size = 0

    def write(self, entries: bytes) -> None:
        """Append ``entries``, whole lines; rotate between them where a file is full. Never raises.

        Blocks: as writes to a regular file do.
        """
        while entries:
            if self._fd < 0:
                self._open()
            if self._max_size is not None and self._size >= self._max_size:
                self._rotate()
            cut = self._room_for(entries)
            if not self._append(entries if cut == len(entries) else entries[:cut]):
                self.dropped += entries.count(b"\n", 0, cut)
            entries = entries[cut:]

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _room_for(self, entries: bytes) -> int:
        """Return the length of the entries up to the one that makes the file full."""
        if self._max_size is None or len(entries) < self._max_size - self._size:
            return len(entries)
        return entries.find(b"\n", max(self._max_size - self._size - 1, 0)) + 1 or len(entries)

    def _append(self, entries: bytes) -> bool:
        if self._fd < 0:
            return False
        try:
            written = os.write(self._fd, entries)
            while written < len(entries):
                written += os.write(self._fd, memoryview(entries)[written:])
        except OSError:
            self._take_back()
            return False
        self._size += written
        return True

    def _take_back(self) -> None:
        """Cut the file to its last whole entry after a write that ended in the middle of one."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self.close()  # the next write mends and opens it anew

    def _rotate(self) -> None:
        self.close()
        try:
            for number in range(self._max_file - 1, 1, -1):
                _rename_if_there(f"{self._path}.{number - 1}", f"{self._path}.{number}")
            if self._max_file > 1:
                _rename_if_there(self._path, f"{self._path}.1")
            else:
                os.truncate(self._path, 0)
        except OSError:
            pass  # the file goes on growing: past its limit is better than lost
        self._open()

    def _open(self) -> None:
        """Open the file at its end; without success the next entries are dropped."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(self._path), _DIRECTORY_MODE)
            self._size = _mend(self._path)
            self._fd = os.open(self._path, _OPEN_FLAGS, 0o640)


class ContainerLog:
    """The streams of one container on their way into its log file."""

    __slots__ = ("_file", "_streams")

    def __init__(
        self, path: str, *, max_size: int | None, max_file: int, attrs: Mapping[str, str]
    ) -> None:
        """As ``LogFile``; ``attrs`` is repeated in every entry."""
        self._file = LogFile(path, max_size=max_size, max_file=max_file)
        self._streams = {name: Lines(name, attrs) for name in ("stdout", "stderr")}

    @property
    def dropped(self) -> int:
        """How many entries the disk refused."""
        return self._file.dropped

    def feed(self, stream: str, data: bytes, time_ns: int) -> None:
        """Log what was read from ``stream`` at ``time_ns``. Never raises."""
        self._file.write(self._streams[stream].feed(data, time_ns))

    def finish(self, time_ns: int) -> None:
        """Log lines that ended without a newline and close the file. Idempotent."""
        for lines in self._streams.values():
            self._file.write(lines.finish(time_ns))
        self._file.close()


def _rename_if_there(source: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(source, target)


def _mend(path: str) -> int:
    """Cut a file that does not end with a newline to its last whole entry; return its size."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    try:
        size = os.fstat(fd).st_size
        tail = os.pread(fd, _TAIL, max(0, size - _TAIL))
        whole = size - len(tail) + tail.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(fd, whole)
        return whole
    finally:
        os.close(fd)
