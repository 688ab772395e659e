"""What is asked of a registry, and its answers as they arrive.

Bodies are taken as they come: no content encoding is undone, because digests are of the bytes on
the wire. None is read without an end, and one that crawls is given up.

Spec: RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, Self

from cais.registry.errors import (
    ERROR_LIMIT_BYTES,
    ProtocolError,
    RegistryUnreachableError,
    error_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cais.registry.cancel import Cancel
    from cais.registry.origin import Url

LONGEST_WAIT_S = 60.0
_PIECE_BYTES = 256 * 1024
_SLOW_BYTES_S, _SLOW_AFTER_S = 1024, 60.0


class Request(NamedTuple):
    """What is asked; repeated as it is on every attempt."""

    method: str
    url: Url
    headers: Mapping[str, str]
    body: bytes | Callable[[], Iterable[bytes]] | Iterator[bytes] = b""
    """An iterator is used up by the first attempt, even one that failed."""

    body_size: int | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether its body can be sent again."""
        return isinstance(self.body, bytes) or callable(self.body)


class Answer:
    """A registry's answer; to be closed, which a ``with`` block does.

    Reading it to the end gives the connection back; otherwise it is closed.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        url: Url,
        sock: socket.socket | None,
        cancel: Cancel,
        give_back: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        self.status = response.status
        self.url = url
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._response = response
        self._sock = sock
        self._cancel = cancel
        self._give_back, self._give_up = give_back, give_up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, limit: int) -> bytes:
        """Return the whole body. ProtocolError: more than ``limit`` bytes."""
        content = b"".join(self.pieces(limit))
        if len(content) > limit:
            raise ProtocolError(f"{self.url}: the answer is longer than {limit} bytes")
        return content

    def pieces(self, limit: int | None = None) -> Iterator[bytes]:
        """Yield the body as it arrives; past ``limit`` bytes it ends.

        Raises:
            RegistryUnreachableError: it broke off, stood still, or crawled.

        """
        total, began = 0, time.monotonic()
        while True:
            try:
                with self._cancel.watch(self._sock):
                    piece = self._response.read1(_PIECE_BYTES)
            except (OSError, http.client.HTTPException) as exc:
                self._cancel.check()
                raise RegistryUnreachableError("GET", self.url, reason_of(exc)) from exc
            if not piece:
                break
            yield piece
            total += len(piece)
            if limit is not None and total > limit:
                return
            elapsed = time.monotonic() - began
            if elapsed > _SLOW_AFTER_S and total / elapsed < _SLOW_BYTES_S:
                raise RegistryUnreachableError("GET", self.url, "the registry is too slow")
        self._cancel.check()  # it ends the connection, which may look like the body's end
        if self._response.length:
            raise RegistryUnreachableError("GET", self.url, "unexpected EOF")

    def close(self) -> None:
        """Give the connection back if the answer was read to its end; idempotent."""
        if self._response.length == 0:
            self._response.read()  # nothing comes, as after HEAD: this only says that it is over
        if self._response.isclosed():
            self._give_back()
        else:
            self._response.close()  # it may be all that holds the socket
            self._give_up()


def raise_error(answer: Answer, what: str) -> None:
    """Raise the RegistryError of an answer whose status is 400 or above."""
    if answer.status >= 400:
        body = b"".join(answer.pieces(ERROR_LIMIT_BYTES))[:ERROR_LIMIT_BYTES]
        error = error_of(answer.status, body, what)
        error.retry_after_s = retry_after(answer.headers)
        raise error


def reason_of(error: BaseException) -> str:
    """Say in the words Docker's users know why there was no answer."""
    if isinstance(error, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, socket.gaierror):
        return "dial tcp: lookup: no such host"
    if isinstance(error, ConnectionRefusedError):
        return "dial tcp: connect: connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return "http: server gave HTTP response to HTTPS client"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "unexpected EOF"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]


def retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds a registry wants to be left alone, a minute at most; 0: no word."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 7:
        return min(float(text), LONGEST_WAIT_S)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, min(seconds, LONGEST_WAIT_S))
