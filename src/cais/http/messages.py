"""The words of an HTTP exchange: what a handler is given, and what it may answer.

A handler is a coroutine from a request to one of these answers:

- ``Response``: everything is known now.
- ``FileRange``: the body is a part of a file, which the kernel sends.
- ``Stream``: the head goes out at once, the rest as it comes; cancelled when the client goes.
- ``Hijack``: the client takes the connection's bytes for itself, as docker attach and exec do.

A handler runs to its end even if its client has gone: what a request began is not left half done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping


JSON = "application/json"
_BODILESS = frozenset({204, 304})


def _nothing() -> None:
    return None


class Body(Protocol):
    """The bytes after a request's head; they can be read once."""

    @property
    def is_expected(self) -> bool:
        """Whether the client announced a body."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the body in pieces as they arrive. ClientGoneError: it was cut short."""
        ...


@dataclass(slots=True)
class Response:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_bodiless(self) -> bool:
        """Whether HTTP forbids this status a body."""
        return self.status in _BODILESS


@dataclass(slots=True)
class FileRange:
    """An answer whose body are ``size`` bytes of a file, from ``offset``.

    ``file`` is closed when it was sent, or the client has gone.
    """

    file: BinaryIO
    offset: int
    size: int
    status: int = 200
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """An answer that goes on for as long as ``chunks`` does; its head is sent before the first.

    When it ends, the client goes, or the daemon stops, ``release`` is called and ``chunks`` closed:
    a generator that was never begun has no ``finally`` to run. With a ``size`` in bytes, the client
    notices when ``chunks`` ends early, or with a ``CutShortError``.
    """

    chunks: AsyncIterator[bytes]
    content_type: str = JSON
    status: int = 200
    release: Callable[[], object] = _nothing
    headers: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None


@dataclass(slots=True)
class Hijack:
    """The connection becomes a byte stream after the head.

    ``serve`` is given the client's socket (non-blocking, borrowed) and what was read from it
    beyond the request; when it returns the connection is closed. ``abandon`` is called instead
    if the client went before that.
    """

    serve: Callable[[socket.socket, bytes], Awaitable[None]]
    abandon: Callable[[], None]
    content_type: str


Answer = Response | FileRange | Stream | Hijack


def json_response(document: Any, status: int = 200) -> Response:  # noqa: ANN401 - any JSON value
    """Answer with a JSON document and the newline Docker ends it with."""
    return Response(status, encode_json(document), JSON)


def encode_json(document: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Encode as Docker does: compact, UTF-8 not escaped, a newline at the end."""
    return (
        json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        + b"\n"
    )
