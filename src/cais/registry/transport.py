"""HTTP to registries: one connection per origin and thread in use, deadlines, careful redirects.

Python's own clients send ``Authorization`` along when a redirect leads elsewhere and follow one
from https to http; here redirects are followed by hand. A header that holds a secret goes only to
the origin it was made for (CVE-2020-15157). Bodies are taken as they come: no content encoding is
undone, because digests are of the bytes on the wire.

Thread-safe; every request blocks its thread. A ``Cancel`` ends them from another one.

Spec: RFC 9110 sections 15.4 (redirection), 10.2.3 (Retry-After); distribution-spec 1.1.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from cais.registry.errors import (
    ERROR_LIMIT_BYTES,
    TRANSIENT,
    ProtocolError,
    RegistryUnreachableError,
    error_of,
)
from cais.registry.origin import InvalidUrlError, Origin, Url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cais.registry.cancel import Cancel

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0
"""Between a request's last byte and the answer's head, and between two pieces of a body."""

MAX_REDIRECTS = 5
MAX_ATTEMPTS = 5
_LONGEST_WAIT_S = 60.0
_MOVED = frozenset({301, 302, 303, 307, 308})
_PIECE_BYTES = 256 * 1024
_SLOW_BYTES_S, _SLOW_AFTER_S = 1024, 60.0
_SECRET = frozenset({"authorization", "cookie"})
_IDLE_PER_ORIGIN = 4
_AGENT = "cais"


class Request(NamedTuple):
    """What is asked; repeated as it is on every attempt."""

    method: str
    url: Url
    headers: Mapping[str, str]
    body: bytes | Callable[[], Iterable[bytes]] = b""
    body_size: int | None = None


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
        if self._response.length:
            raise RegistryUnreachableError("GET", self.url, "unexpected EOF")

    def close(self) -> None:
        """Give the connection back if the answer was read to its end; idempotent."""
        if self._response.length == 0:
            self._response.read()  # nothing comes, as after HEAD: this only says that it is over
        if self._response.isclosed():
            self._give_back()
        else:
            self._give_up()


class Transport:
    """Connections to any number of origins.

    Args:
        context: returns the TLS settings for an origin; called once for each connection.

    """

    def __init__(self, context: Callable[[Origin], ssl.SSLContext]) -> None:
        self._context = context
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def send(self, request: Request, cancel: Cancel, *, attempts: int = MAX_ATTEMPTS) -> Answer:
        """Return the answer to a request, whatever its status, after redirects and retries.

        Repeated with growing pauses: broken connections and the statuses of a busy or ailing
        registry, whose ``Retry-After`` counts up to a minute.

        Raises:
            RegistryUnreachableError: no attempt brought an answer.
            InvalidUrlError: a redirect leads where none may.
            DeadlineError: cancelled.

        """
        for attempt in range(1, attempts + 1):
            pause = random.uniform(0.5, 1) * min(2 ** (attempt - 1), _LONGEST_WAIT_S)  # noqa: S311
            try:
                answer = self._follow(request, cancel)
            except RegistryUnreachableError:
                if attempt == attempts:
                    raise
            else:
                if answer.status not in TRANSIENT or attempt == attempts:
                    return answer
                pause = max(pause, _retry_after(answer.headers))
                answer.close()
            cancel.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def fetch(self, request: Request, cancel: Cancel, limit: int) -> tuple[Answer, bytes]:
        """Return an answer that is no error, and its body.

        Raises:
            RegistryError: its status is 400 or above.
            ProtocolError: longer than ``limit`` bytes.

        """
        with self.send(request, cancel) as answer:
            raise_error(answer, f"{request.method} {request.url}")
            return answer, answer.read(limit)

    def _follow(self, request: Request, cancel: Cancel) -> Answer:
        first = request.url.origin
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once(request, cancel)
            if answer.status not in _MOVED or request.method not in {"GET", "HEAD"}:
                return answer
            with answer:
                target = answer.url.join(answer.headers.get("location", ""))
                answer.read(ERROR_LIMIT_BYTES)
            if first.scheme == "https" and target.origin.scheme == "http":
                raise InvalidUrlError(f"{request.url}: refused a redirect from https to http")
            headers = request.headers
            if target.origin != first:
                headers = {k: v for k, v in headers.items() if k.lower() not in _SECRET}
            request = request._replace(url=target, headers=headers)
        raise ProtocolError(f"{request.url}: more than {MAX_REDIRECTS} redirects")

    def _once(self, request: Request, cancel: Cancel) -> Answer:
        connection, is_used = self._take(request.url.origin)
        try:
            return self._exchange(connection, request, cancel)
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            cancel.check()
            if is_used:  # the registry closed it while it was idle: once more, on a new one
                return self._once(request, cancel)
            raise RegistryUnreachableError(request.method, request.url, reason_of(exc)) from exc
        except BaseException:
            connection.close()
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, request: Request, cancel: Cancel
    ) -> Answer:
        cancel.check()
        if connection.sock is None:
            connection.timeout = CONNECT_TIMEOUT_S
            connection.connect()
        sock = connection.sock
        assert sock is not None
        sock.settimeout(ANSWER_TIMEOUT_S)
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **request.headers}
        body = request.body() if callable(request.body) else request.body
        if request.body_size is not None:
            headers["Content-Length"] = str(request.body_size)
        with cancel.watch(sock):
            connection.request(request.method, request.url.target, body or None, headers)
            response = connection.getresponse()
        origin = request.url.origin

        def give_back() -> None:
            self._give_back(origin, connection)

        return Answer(response, request.url, sock, cancel, give_back, connection.close)

    def _take(self, origin: Origin) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if idle := self._idle.get(origin):
                return idle.pop(), True
        if origin.scheme == "https":
            context = self._context(origin)
            return http.client.HTTPSConnection(origin.host, origin.port, context=context), False
        return http.client.HTTPConnection(origin.host, origin.port), False

    def _give_back(self, origin: Origin, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            if connection.sock is not None and connection not in idle:
                if len(idle) < _IDLE_PER_ORIGIN:
                    idle.append(connection)
                    return
            elif connection in idle:
                return
        connection.close()


def raise_error(answer: Answer, what: str) -> None:
    """Raise the RegistryError of an answer whose status is 400 or above."""
    if answer.status >= 400:
        body = b"".join(answer.pieces(ERROR_LIMIT_BYTES))[:ERROR_LIMIT_BYTES]
        error = error_of(answer.status, body, what)
        error.retry_after_s = _retry_after(answer.headers)
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


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 7:
        return min(float(text), _LONGEST_WAIT_S)
    return 0.0
