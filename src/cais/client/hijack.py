"""A connection taken over after an HTTP upgrade: attach and exec speak raw bytes on it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Self

from cais.client.http1 import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_BYTES = 65536
STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)


class Hijacked:
    """The stream of an attach or exec; a context manager that owns its socket."""

    def __init__(self, connection: socket.socket, read_ahead: bytes) -> None:
        self._connection = connection
        self._read_ahead = read_ahead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, borrowed, for a selector."""
        return self._connection.fileno()

    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises ConnectionError when the daemon is gone."""
        self._connection.sendall(data)

    def close_stdin(self) -> None:
        """End our direction: the container's standard input ends, its output still comes."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        """End both directions; a read waiting in another thread returns the end."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def pieces(self) -> Iterator[bytes]:
        """Yield what the daemon sends until it closes."""
        while data := self.receive():
            yield data

    def receive(self) -> bytes:
        """Return the bytes that arrive next, ``b""`` at the end."""
        if self._read_ahead:
            data, self._read_ahead = self._read_ahead, b""
            return data
        try:
            return self._connection.recv(READ_BYTES)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def demultiplex(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield ``(stream, payload)`` of Docker's frames as their bytes arrive.

    A frame is 8 bytes (stream, three zeros, big-endian length) and its payload, which is handed
    on in parts when it comes in parts.

    Raises:
        ProtocolError: a header that is none, or an end inside a frame.

    """
    buffer = b""
    stream = left = 0
    for piece in pieces:
        buffer += piece
        while buffer:
            if not left:
                if len(buffer) < 8:
                    break
                stream, left = _parse_frame_header(buffer[:8])
                buffer = buffer[8:]
                continue
            payload, buffer = buffer[:left], buffer[left:]
            left -= len(payload)
            yield stream, payload
    if buffer or left:
        raise ProtocolError("the stream ended inside a frame")


def _parse_frame_header(header: bytes) -> tuple[int, int]:
    if header[0] > SYSTEM_ERROR or header[1:4] != b"\0\0\0":
        raise ProtocolError(f"not a frame header: {header!r}")
    return header[0], int.from_bytes(header[4:], "big")
