"""What a client has not read yet: 1 MiB in memory, then 64 MiB in unlinked files, in order."""

from __future__ import annotations

import itertools
import os
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MEMORY_LIMIT: Final = 1 << 20
SPILL_LIMIT: Final = 64 << 20
_SEGMENT_SIZE: Final = 8 << 20
_CHUNK: Final = 256 << 10

_numbers = itertools.count()


class Backlog:
    """A queue of bytes. ``append`` never loses any; ``is_full`` asks the source to wait."""

    __slots__ = ("_chunks", "_directory", "_memory", "_segments", "_spilled", "_stuck")

    def __init__(self, directory: str) -> None:
        """``directory``: where files may be spilled, on a disk."""
        self._directory = directory
        self._chunks: deque[memoryview] = deque()  # older than everything spilled
        self._memory = 0
        self._segments: deque[_Segment] = deque()
        self._spilled = 0
        self._stuck = False  # the disk refused: memory only from here on

    def __len__(self) -> int:
        return self._memory + self._spilled

    @property
    def is_full(self) -> bool:
        """Whether no more should be appended until some of it has been consumed."""
        if self._stuck:
            return self._memory >= MEMORY_LIMIT
        return self._spilled >= SPILL_LIMIT

    def append(self, data: bytes | memoryview) -> None:
        """Put ``data`` at the end."""
        fits = self._memory + len(data) <= MEMORY_LIMIT
        if not self._segments and (fits or self._stuck):
            self._keep(data)
        elif not self._spill(data):
            self._stuck = True
            while self._segments:  # back to memory, as order demands; the source waits now
                self._refill()
            self._keep(data)

    def peek(self) -> memoryview:
        """Return the bytes to be written first; empty if there are none."""
        if not self._chunks and self._segments:
            self._refill()
        return self._chunks[0] if self._chunks else memoryview(b"")

    def consume(self, count: int) -> None:
        """Take ``count`` bytes of what ``peek`` returned off the queue."""
        first = self._chunks.popleft()
        self._memory -= count
        if count < len(first):
            self._chunks.appendleft(first[count:])
        elif not len(self):
            self._stuck = False  # the disk may have room again

    def close(self) -> None:
        """Drop everything. Idempotent."""
        self._chunks.clear()
        self._memory = self._spilled = 0
        while self._segments:
            self._segments.popleft().close()

    def _keep(self, data: bytes | memoryview) -> None:
        self._chunks.append(memoryview(data))
        self._memory += len(data)

    def _spill(self, data: bytes | memoryview) -> bool:
        try:
            if not self._segments or self._segments[-1].written >= _SEGMENT_SIZE:
                self._segments.append(_Segment(self._directory))
            self._segments[-1].append(data)
        except OSError:
            return False
        self._spilled += len(data)
        return True

    def _refill(self) -> None:
        segment = self._segments[0]
        data = segment.take(_CHUNK)
        if data:
            self._keep(data)
            self._spilled -= len(data)
        if segment.is_empty:
            segment.close()
            self._segments.popleft()


class _Segment:
    """An unlinked file: written at its end, read from its start."""

    __slots__ = ("_fd", "_read", "written")

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, f".spill-{os.getpid()}-{next(_numbers)}")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        self._read = 0
        self.written = 0

    @property
    def is_empty(self) -> bool:
        return self._read == self.written

    def append(self, data: bytes | memoryview) -> None:
        """Write all of ``data`` or, with an OSError, none that counts."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], self.written + done)
        self.written += done

    def take(self, size: int) -> bytes:
        data = os.pread(self._fd, min(size, self.written - self._read), self._read)
        self._read += len(data)
        return data

    def close(self) -> None:
        os.close(self._fd)
