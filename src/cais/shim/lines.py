r"""Bytes of a container to lines of Docker's ``json-file`` log.

    {"log":"text\n","stream":"stdout","time":"2025-01-31T12:00:00.123456789Z"}

A line of 16 KiB or more is cut into entries of 16 KiB without a newline, then the rest with one;
all carry the time of the first. The last line of a stream that ends without a newline is logged
without one. Lines that arrived in one read share its time.

Text is escaped as Docker escapes it: ``<``, ``>``, ``&`` and U+2028/9 as ``\u003c`` and so on, of
the control characters only newline and carriage return by their short names, and every byte that
is not UTF-8 as one ``\ufffd``. Output that is mostly not UTF-8 takes a shorter way: the same JSON
values, except that a character cut short becomes one U+FFFD, not one per byte.

Whole reads are escaped at once by functions written in C; there is no work per line.
"""

from __future__ import annotations

import codecs
import time

try:
    from _json import encode_basestring as _quote
except ImportError:  # an interpreter without the accelerator: the same result, slowly
    from json.encoder import py_encode_basestring as _quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LINE = 16 << 10

_DELETE = b"\x7f"  # escaped by nobody, hardly ever written: stands for the newline meanwhile
_BACKSLASH = "\udc5c"  # stands for the program's own backslashes; UTF-8 cannot hold it
_BACKSLASH_BYTES = b"\xed\xb1\x9c"
_BINARY_SAMPLE = 2048
_ERRORS = "cais.replace-each-byte"

# What the C encoder leaves alone or writes by a short name, and Docker does not.
_RESPELLED = (
    (b"\t", b"\\t", b"\\u0009"),
    (b"\b", b"\\b", b"\\u0008"),
    (b"\f", b"\\f", b"\\u000c"),
    (b"<", b"<", b"\\u003c"),
    (b">", b">", b"\\u003e"),
    (b"&", b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\xe2\x80\xa9", b"\\u2029"),
)


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff" * (error.end - error.start), error.end


codecs.register_error(_ERRORS, _replace_each_byte)


class Lines:
    """The log entries of one stream of one process; remembers the line it is in."""

    __slots__ = ("_head", "_pending", "_tail", "_time")

    def __init__(self, stream: str, attrs: Mapping[str, str]) -> None:
        """``attrs`` is repeated in every entry, after the stream, sorted by key."""
        self._head = b'{"log":"'
        self._tail = f'","stream":"{stream}",{_attrs(attrs)}"time":"'.encode()
        self._pending = b""
        self._time = b""  # of the first part, while in a line that has been cut

    def feed(self, data: bytes, time_ns: int) -> bytes:
        """Return the entries complete with ``data``, which was read at ``time_ns``."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        now = format_time(time_ns)
        end = data.rfind(b"\n") + 1
        if self._time or not _is_short(data, end):
            return self._feed_long(data, now)
        if len(data) - end >= MAX_LINE:
            return self._entries(data[:end], now) + self._feed_long(data[end:], now)
        self._pending = data[end:]
        return self._entries(data[:end], now)

    def finish(self, time_ns: int) -> bytes:
        """Return the entry of a last line without a newline, if there is one."""
        data, self._pending = self._pending, b""
        when, self._time = self._time or format_time(time_ns), b""
        return self._entry(data, b"", when) if data else b""

    def _feed_long(self, data: bytes, now: bytes) -> bytes:
        entries = []
        start = 0
        while start < len(data):
            end = data.find(b"\n", start, start + MAX_LINE)
            if end >= 0:
                entries.append(self._entry(data[start:end], b"\\n", self._time or now))
                self._time = b""
                start = end + 1
            elif len(data) - start >= MAX_LINE:
                self._time = self._time or now
                entries.append(self._entry(data[start : start + MAX_LINE], b"", self._time))
                start += MAX_LINE
            else:
                break
        self._pending = data[start:]
        return b"".join(entries)

    def _entry(self, line: bytes, newline: bytes, when: bytes) -> bytes:
        return b"".join((self._head, escape(line), newline, self._tail, when, b'"}\n'))

    def _entries(self, lines: bytes, when: bytes) -> bytes:
        """Return the entries of whole short lines."""
        if not lines:
            return b""
        close = b"".join((b"\\n", self._tail, when, b'"}\n'))
        return self._head + escape_lines(lines[:-1], close + self._head) + close


def escape(data: bytes) -> bytes:
    """Return ``data`` as the inside of a JSON string."""
    return escape_lines(data, b"\\n")


def escape_lines(data: bytes, newline: bytes) -> bytes:
    """Return ``data`` escaped as the inside of a JSON string, with ``newline`` for its newlines."""
    if _is_binary(data):
        return _escape_binary(data, newline)
    mark = b"\\n"
    if _DELETE not in data:
        mark = _DELETE
        data = data.replace(b"\n", mark)
    text = data.decode("utf-8", _ERRORS)
    # Set apart, so that every backslash in the quoted text is one of the encoder's.
    quoted = _quote(text.replace("\\", _BACKSLASH) if b"\\" in data else text)
    out = quoted[1:-1].encode("utf-8", "surrogatepass")
    for raw, spelt, wanted in _RESPELLED:
        if raw in data:
            out = out.replace(spelt, wanted)
    out = out.replace(mark, newline)
    if not text.isascii():
        out = out.replace(b"\xed\xb3\xbf", b"\\ufffd")
    return out.replace(_BACKSLASH_BYTES, b"\\\\") if b"\\" in data else out


def format_time(time_ns: int) -> bytes:
    """Return RFC 3339 in UTC with as many digits of a second as are not zeros at the end."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return f"{_format_second(seconds)}{fraction}Z".encode()


_second = (0, "1970-01-01T00:00:00")


def _format_second(seconds: int) -> str:
    global _second  # noqa: PLW0603 - strftime once a second, not once a read
    if _second[0] != seconds:
        _second = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return _second[1]


def _is_short(data: bytes, end: int) -> bool:
    """Tell whether every line of ``data[:end]``, which ends with a newline, is below the limit."""
    start = 0
    while end - start > MAX_LINE:
        start = data.rfind(b"\n", start, start + MAX_LINE) + 1
        if start == 0:
            return False
    return True


def _is_binary(data: bytes) -> bool:
    if data.isascii():
        return False
    sample = data[:_BINARY_SAMPLE]
    return sample.decode("utf-8", "replace").count("\ufffd") > len(sample) >> 3


def _escape_binary(data: bytes, newline: bytes) -> bytes:
    # A newline is hardly ever found by the byte pair it is quoted as: split before, not after.
    lines = data.decode("utf-8", "replace").split("\n")
    return newline.decode().join([_quote(line)[1:-1] for line in lines]).encode()


def _attrs(attrs: Mapping[str, str]) -> str:
    if not attrs:
        return ""
    members = (
        f'"{escape(name.encode()).decode()}":"{escape(value.encode()).decode()}"'
        for name, value in sorted(attrs.items())
    )
    return f'"attrs":{{{",".join(members)}}},'
