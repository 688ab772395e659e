"""The part of HTTP/1.1 a client of one daemon needs, over a socket.

Why not ``http.client``: importing it costs more than a whole command may take, and a hijacked
connection needs the bytes that were read ahead. Spec: RFC 9112 sections 2 to 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cais.errors import DataLossError, DeadlineError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = 65536
MAX_HEADERS = 200
READ_BYTES = 65536


class ProtocolError(DataLossError):
    """The peer does not speak HTTP/1.1, or stopped in the middle."""


class Head(NamedTuple):
    """The status line and the fields of a response; field names are lower case."""

    status: int
    reason: str
    fields: dict[str, str]


class Reader:
    """Buffered reads from a socket, which it borrows."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def read_some(self, limit: int = READ_BYTES) -> bytes:
        """Return at most ``limit`` bytes as soon as there are any; ``b""`` at the end."""
        if not self._buffer:
            return self._receive(limit)
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return data

    def read_line(self) -> bytes:
        """Return a line without its end. Raises ProtocolError past ``MAX_LINE_BYTES``."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                raise ProtocolError("the daemon sent a header line without an end")
            data = self._receive(READ_BYTES)
            if not data:
                raise ProtocolError("the daemon closed the connection in the middle of an answer")
            self._buffer += data
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r")

    def steal_buffer(self) -> bytes:
        """Return the bytes read ahead; they are the caller's from now on."""
        data, self._buffer = self._buffer, b""
        return data

    def _receive(self, limit: int) -> bytes:
        try:
            return self._connection.recv(limit)
        except TimeoutError as error:
            raise DeadlineError("the daemon did not answer in time") from error
        except ConnectionError:
            return b""


def encode_head(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return a request's head. Raises ValueError for a line break smuggled into a part."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("line break in a request head")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_head(reader: Reader) -> Head:
    """Read a response's head, skipping interim answers (100 Continue).

    Raises:
        ProtocolError: not HTTP, or cut short.

    """
    while True:
        head = _read_one_head(reader)
        if head.status == 101 or head.status >= 200:
            return head


def _read_one_head(reader: Reader) -> Head:
    line = reader.read_line().decode("latin-1")
    version, _, rest = line.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdecimal():
        raise ProtocolError(f"not an HTTP answer: {line[:80]!r}")
    fields: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = reader.read_line().decode("latin-1")
        if not line:
            return Head(int(code), reason, fields)
        name, separator, value = line.partition(":")
        if not separator:
            raise ProtocolError(f"not a header line: {line[:80]!r}")
        fields[name.strip().lower()] = value.strip()
    raise ProtocolError(f"more than {MAX_HEADERS} header lines")


def read_body(reader: Reader, head: Head, method: str) -> Iterator[bytes]:
    """Yield a body's pieces as they arrive (RFC 9112 section 6.3).

    Raises:
        ProtocolError: it ended before its announced length.

    """
    if method == "HEAD" or head.status in (101, 204, 304):
        return iter(())
    if head.fields.get("transfer-encoding", "").lower().endswith("chunked"):
        return _read_chunks(reader)
    length = head.fields.get("content-length")
    if length is None:
        return iter(reader.read_some, b"")
    if not length.isdecimal():
        raise ProtocolError(f"not a content length: {length[:40]!r}")
    return _read_exactly(reader, int(length))


def _read_exactly(reader: Reader, length: int) -> Iterator[bytes]:
    while length:
        data = reader.read_some(min(length, READ_BYTES))
        if not data:
            raise ProtocolError("the daemon closed the connection in the middle of an answer")
        length -= len(data)
        yield data


def _read_chunks(reader: Reader) -> Iterator[bytes]:
    while size := _chunk_size(reader.read_line()):
        yield from _read_exactly(reader, size)
        if reader.read_line():
            raise ProtocolError("a chunk is longer than it says")
    while reader.read_line():
        pass  # trailers


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        if 0 < len(digits) <= 16 and digits.isalnum():
            return int(digits, 16)
    except ValueError:
        pass
    raise ProtocolError(f"not a chunk size: {line[:40]!r}")


def encode_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a chunked body; empty pieces, which would end it, are left out."""
    for piece in pieces:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
