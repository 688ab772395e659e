"""Reading ``json-file`` logs: across rotations, from the end, and as they grow.

A log is ``path`` (being written), ``path.1`` (the one before), ``path.2``, ... The shim is its only
writer and rotates by renaming, so a descriptor that was opened once reads on to that file's true
end, and the file to read next is the one whose younger neighbour it is by then.

Spec: docs/architecture.md 3.3 "The log file".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote_plus

import msgspec

from cais.spec.conversion import decoder

BLOCK_BYTES = 256 * 1024
_MAX_LINE_BYTES = 1 << 20
"""The shim splits lines at 16 KiB; anything longer is damage and is skipped."""

_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}


class LogEntry(msgspec.Struct):
    """One line of the file: a line of output, or a part of a long one."""

    log: str
    stream: str
    time: str
    attrs: dict[str, str] = {}


_decode = decoder(LogEntry)


@dataclass(frozen=True, slots=True)
class LogSelection:
    """What of a log is wanted, and how it is written out."""

    stdout: bool = True
    stderr: bool = True
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False
    details: bool = False
    is_framed: bool = True
    """stdcopy frames; False: raw, as for a terminal."""


class LogFormatter:
    """Turns log entries into what the client gets; knows when ``until`` has been passed."""

    def __init__(self, selection: LogSelection) -> None:
        self._selection = selection
        self._streams = {
            name
            for name, is_wanted in (("stdout", selection.stdout), ("stderr", selection.stderr))
            if is_wanted
        }
        self._since = _fixed_time_of(selection.since_ns)
        self._until = _fixed_time_of(selection.until_ns)
        self._needs_time = bool(self._since or self._until or selection.timestamps)
        self.is_past_end = False

    def seconds_left(self, now_ns: int) -> float | None:
        """Return how long until ``until`` passes; None: for ever. Marks the end when it has."""
        if self._selection.until_ns is None:
            return None
        left_s = (self._selection.until_ns - now_ns) / 1e9
        self.is_past_end = self.is_past_end or left_s <= 0
        return max(0.0, left_s)

    def format(self, line: bytes) -> bytes:
        """Return the entry's bytes, b"" if it is not wanted or damaged."""
        entry = parse_entry(line)
        if entry is None or entry.stream not in self._streams:
            return b""
        text = entry.log.encode(errors="replace")
        if self._selection.details:
            text = _details(entry.attrs) + b" " + text
        if self._needs_time:
            moment = fixed_time(entry.time)
            if self._since and moment < self._since:
                return b""
            if self._until and moment > self._until:
                self.is_past_end = True
                return b""
            if self._selection.timestamps:
                text = moment.encode() + b" " + text
        if not self._selection.is_framed:
            return text
        number = _STREAM_NUMBERS[entry.stream]
        return bytes((number, 0, 0, 0)) + len(text).to_bytes(4, "big") + text


def parse_entry(line: bytes) -> LogEntry | None:
    """Decode a line; where a crash left half a line, the whole one that follows it counts."""
    while True:
        try:
            return _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            rest = line.find(b'{"log":', 1)
            if rest < 0:
                return None
            line = line[rest:]


def fixed_time(moment: str) -> str:
    """Give an RFC 3339 UTC time nine digits after the point, so that times compare as text."""
    head, _, fraction = moment.removesuffix("Z").partition(".")
    return f"{head}.{fraction:0<9.9}Z"


def _fixed_time_of(unix_ns: int | None) -> str:
    if not unix_ns:
        return ""
    whole_s, fraction_ns = divmod(unix_ns, 10**9)
    moment = datetime.fromtimestamp(max(0, min(whole_s, 253402300799)), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction_ns:09d}Z"


def _details(attrs: dict[str, str]) -> bytes:
    pairs = (f"{quote_plus(key)}={quote_plus(attrs[key])}" for key in sorted(attrs))
    return ",".join(pairs).encode()


class LogReader:
    """A position in a rotated log. Synchronous; ``close`` it.

    Blocks: every method reads files.
    """

    def __init__(self, path: str, *, tail: int | None = None) -> None:
        self._path = path
        self._fd = -1
        self._left = b""
        if tail is None:
            self._open_oldest()
        else:
            self._open_tail(tail)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def read_lines(self) -> list[bytes] | None:
        """Return the next whole lines; None when there is nothing more now.

        Half a line at the end is kept for the next call.
        """
        while True:
            if self._fd < 0 and not self._open_oldest():
                return None
            block = self._read_block()
            if block is None:
                return None
            *lines, self._left = (self._left + block).split(b"\n")
            if len(self._left) > _MAX_LINE_BYTES:
                self._left = b""
            if lines:
                return lines

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _files(self) -> dict[int, str]:
        """Return inode and path of each file, oldest first; misses none while the shim rotates.

        A file only moves up, and a rotation leaves one number free at a time: whoever looks from
        the youngest on meets every file, some twice.
        """
        found: dict[int, str] = {}
        number = missing = 0
        while missing < 2:
            path = f"{self._path}.{number}" if number else self._path
            if (inode := _inode(path)) is None:
                missing += 1
            else:
                missing = 0
                found[inode] = path
            number += 1
        return dict(reversed(found.items()))

    def _open_oldest(self) -> bool:
        return any(map(self._open, self._files()))

    def _open(self, inode: int) -> bool:
        """Open this file, whatever its name is by now; say whether it is still there."""
        while path := self._files().get(inode):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            if os.fstat(fd).st_ino == inode:
                self.close()
                self._fd = fd
                return True
            os.close(fd)
        return False

    def _read_block(self) -> bytes | None:
        """Return bytes of this or the next file, b"" after a change of file; None: no more."""
        block = os.read(self._fd, BLOCK_BYTES)
        if block or self._is_truncated():
            return block
        return self._next_file_block()

    def _is_truncated(self) -> bool:
        """Start over in a file that became shorter (``max-file=1`` rotates by truncation)."""
        if os.lseek(self._fd, 0, os.SEEK_CUR) <= os.fstat(self._fd).st_size:
            return False
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._left = b""
        return True

    def _next_file_block(self) -> bytes | None:
        """Return what is left of a rotated file, else b"" with the next one open; None: no more."""
        mine = os.fstat(self._fd).st_ino
        if _inode(self._path) == mine:
            return None
        # Renamed after our end of file was seen: what was written in between comes first.
        if block := os.read(self._fd, BLOCK_BYTES):
            return block
        inodes = list(self._files())
        position = inodes.index(mine) + 1 if mine in inodes else 0
        if position >= len(inodes) or not self._open(inodes[position]):
            return None
        self._left = b""
        return b""

    def _open_tail(self, count: int) -> None:
        for inode in reversed(self._files()):
            if not self._open(inode):
                continue
            offset, found = _tail_offset(self._fd, count)
            os.lseek(self._fd, offset, os.SEEK_SET)
            count -= found
            if count <= 0:
                return


def _tail_offset(fd: int, count: int) -> tuple[int, int]:
    """Return where the last ``count`` lines begin, and how many there are (at most ``count``)."""
    end = position = os.fstat(fd).st_size
    if count <= 0:
        return end, 0
    found = 0
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        block = os.pread(fd, position - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at + 1 == end:
                continue  # the newline that ends the last line begins none
            found += 1
            if found == count:
                return start + at + 1, found
        position = start
    return 0, found + (end > 0)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path, follow_symlinks=False).st_ino  # noqa: PTH116
    except FileNotFoundError:
        return None


def read_batch(reader: LogReader, formatter: LogFormatter) -> bytes | None:
    """Return the next wanted bytes of a log; None when there is nothing more now.

    Blocks: reads until something is wanted or the end.
    """
    while not formatter.is_past_end:
        lines = reader.read_lines()
        if lines is None:
            return None
        if output := b"".join(map(formatter.format, lines)):
            return output
    return None
