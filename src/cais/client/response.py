"""An answer of the daemon: its status, its body as it streams, and the failure it may mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from cais import errors
from cais.client.http1 import ProtocolError, read_body

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from cais.client.http1 import Head, Reader

MAX_DOCUMENT_BYTES = 256 << 20
MAX_ERROR_BYTES = 1 << 16


class DaemonAnswer:
    """Marks a failure that the daemon reported, not one that happened on the way."""


_CLASSES: dict[int, type[errors.CaisError]] = {
    304: errors.NotModifiedError,
    400: errors.InvalidArgumentError,
    401: errors.UnauthenticatedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    501: errors.UnsupportedError,
    503: errors.UnavailableError,
}


class Response:
    """One answer, and the connection it comes through; a context manager."""

    def __init__(self, connection: socket.socket, reader: Reader, head: Head, method: str) -> None:
        self.status = head.status
        self.fields = head.fields
        self._connection = connection
        self._pieces = read_body(reader, head, method)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a body not read to its end is dropped."""
        self._connection.close()

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, and close at its end."""
        with self:
            yield from self._pieces

    def read(self, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Return the whole body. Raises ProtocolError past ``limit``."""
        parts, size = [], 0
        for piece in self.pieces():
            parts.append(piece)
            size += len(piece)
            if size > limit:
                raise ProtocolError(f"an answer of more than {limit} bytes")
        return b"".join(parts)

    def json(self) -> Any:  # noqa: ANN401 - whatever the daemon says
        """Return the body as a document, None for an empty one."""
        body = self.read()
        return _decode(body) if body.strip() else None

    def documents(self) -> Iterator[Any]:
        """Yield the JSON documents of a stream (events, stats, progress) as they arrive."""
        pending = b""
        for piece in self.pieces():
            *lines, pending = (pending + piece).split(b"\n")
            if len(pending) > MAX_DOCUMENT_BYTES:
                raise ProtocolError(f"a document of more than {MAX_DOCUMENT_BYTES} bytes")
            yield from (_decode(line) for line in lines if line.strip())
        if pending.strip():
            yield _decode(pending)

    def raise_for_status(self) -> None:
        """Raise the failure the status means, with the daemon's own message, and close.

        Raises:
            CaisError: the class that ``api.errors`` made the status from.

        """
        if self.status < 300 or self.status == 304:
            return
        body = self._read_error()
        kind = _answer_class(_CLASSES.get(self.status, errors.InternalError))
        raise kind(_message_of(body) or f"the daemon answered {self.status}")

    def _read_error(self) -> bytes:
        body = b""
        with self:
            for piece in self._pieces:
                body += piece
                if len(body) > MAX_ERROR_BYTES:
                    break
        return body[:MAX_ERROR_BYTES]


def _answer_class(kind: type[errors.CaisError]) -> type[errors.CaisError]:
    """Return ``kind`` as the class of an error that the daemon reported."""
    return type(kind.__name__, (DaemonAnswer, kind), {})


def _decode(data: bytes) -> Any:  # noqa: ANN401
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {data[:80]!r}") from error


def _message_of(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="backslashreplace").strip()
    message = document.get("message") if isinstance(document, dict) else None
    return message if isinstance(message, str) else ""
