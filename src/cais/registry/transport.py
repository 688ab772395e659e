"""HTTP to registries: one connection per origin and thread in use, deadlines, careful redirects.

Python's own clients send ``Authorization`` along when a redirect leads elsewhere and follow one
from https to http; here redirects are followed by hand. A header that holds a secret goes only to
the origin it was made for (CVE-2020-15157).

Thread-safe; every request blocks its thread. A ``Cancel`` ends them from another one.

Spec: RFC 9110 section 15.4 (redirection); distribution-spec 1.1.
"""

from __future__ import annotations

import http.client
import random
import threading
from typing import TYPE_CHECKING

from cais.registry.answers import (
    LONGEST_WAIT_S,
    Answer,
    Request,
    raise_error,
    reason_of,
    retry_after,
)
from cais.registry.errors import (
    ERROR_LIMIT_BYTES,
    TRANSIENT,
    ProtocolError,
    RegistryUnreachableError,
)
from cais.registry.proxies import NO_PROXIES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from cais.registry.cancel import Cancel
    from cais.registry.origin import Origin
    from cais.registry.proxies import Proxies, Proxy

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 60.0
"""Between a request's last byte and the answer's head, and between two pieces of a body."""

MAX_REDIRECTS = 5
MAX_ATTEMPTS = 5
_MOVED = frozenset({301, 302, 303, 307, 308})
_SECRET = frozenset({"authorization", "cookie"})
_IDLE_PER_ORIGIN = 4
_AGENT = "cais"


class Transport:
    """Connections to any number of origins.

    Args:
        context: returns the TLS settings for an origin; called once for each connection.
        proxies: on the way to some origins.

    """

    def __init__(
        self, context: Callable[[Origin], ssl.SSLContext], proxies: Proxies = NO_PROXIES
    ) -> None:
        self._context = context
        self._proxies = proxies
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
            pause = random.uniform(0.5, 1) * min(2 ** (attempt - 1), LONGEST_WAIT_S)  # noqa: S311
            try:
                answer = self._follow(request, cancel)
            except RegistryUnreachableError:
                if attempt == attempts:
                    raise
            else:
                if answer.status not in TRANSIENT or attempt == attempts:
                    return answer
                pause = max(pause, retry_after(answer.headers))
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
            if is_used and request.is_repeatable:  # closed while it was idle: once more, anew
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
        origin = request.url.origin
        target = request.url.target
        if origin.scheme == "http" and (proxy := self._proxies.find(origin)) is not None:
            target = str(request.url)
            headers |= _authorized(proxy)
        with cancel.watch(sock):
            connection.request(request.method, target, body or None, headers)
            response = connection.getresponse()

        def give_back() -> None:
            self._give_back(origin, connection)

        return Answer(response, request.url, sock, cancel, give_back, connection.close)

    def _take(self, origin: Origin) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if idle := self._idle.get(origin):
                return idle.pop(), True
        return self._connection(origin), False

    def _connection(self, origin: Origin) -> http.client.HTTPConnection:
        proxy = self._proxies.find(origin)
        host, port = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
        if origin.scheme == "http":
            return http.client.HTTPConnection(host, port)
        connection = http.client.HTTPSConnection(host, port, context=self._context(origin))
        if proxy:  # the proxy sees where to, and no more
            connection.set_tunnel(origin.host, origin.port, _authorized(proxy))
        return connection

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


def _authorized(proxy: Proxy) -> dict[str, str]:
    return {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
