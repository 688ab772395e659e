"""Redirects, retries, limits and broken answers."""

from __future__ import annotations

import contextlib
import threading
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from cais.errors import DeadlineError
from cais.registry.answers import Request, retry_after
from cais.registry.cancel import Cancel
from cais.registry.errors import (
    DeniedByRegistryError,
    ProtocolError,
    RegistryUnreachableError,
    UnknownToRegistryError,
    error_of,
)
from cais.registry.origin import InvalidUrlError, Url
from cais.testing.scripted_registry import answering, serving, transport
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cais.registry.origin import Origin
    from cais.registry.transport import Transport
    from cais.testing.scripted_registry import Asked, Reply, Server

LIMIT = 1 << 20
SECRET = {"Authorization": "Bearer secret"}


class NoPause(Cancel):
    """A Cancel whose waits take no time, and are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.check()


def get(
    carrier: Transport, origin: Origin, target: str = "/", headers: Mapping[str, str] | None = None
) -> bytes:
    request = Request("GET", Url(origin, target), headers or {})
    return carrier.fetch(request, NoPause(), LIMIT)[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_cve_2020_15157_a_secret_does_not_follow_a_redirect(status: int) -> None:
    with (
        serving(lambda *_: (200, {}, b"here")) as elsewhere,
        serving(lambda *_: (status, {"Location": f"{elsewhere.origin}/x"}, b"")) as server,
        transport() as carrier,
    ):
        assert get(carrier, server.origin, headers=SECRET) == b"here"
        assert server.secrets() == ["Bearer secret"]
        assert elsewhere.secrets() == []


def test_a_secret_stays_at_home_on_the_way_back() -> None:
    """A redirect to another origin and from there home again brings no secret along."""

    def script(_method: str, target: str, _headers: dict[str, str]) -> Reply:
        if target == "/back":
            return 200, {}, b"back"
        return 302, {"Location": f"{elsewhere.origin}/"}, b""

    with serving(script) as server, transport() as carrier:
        home = f"{server.origin}/back"
        with serving(lambda *_: (302, {"Location": home}, b"")) as elsewhere:
            assert get(carrier, server.origin, headers=SECRET) == b"back"
            assert server.secrets() == ["Bearer secret"]
            assert elsewhere.secrets() == []


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "unix:///x", "http://a:b@127.0.0.1/", "", "http://ä/"]
)
def test_redirects_to_nowhere(location: str) -> None:
    fields = {"Location": location.encode().decode("latin-1")}
    with serving(lambda *_: (302, fields, b"")) as server, transport() as carrier:
        with pytest.raises((InvalidUrlError, ProtocolError)):
            get(carrier, server.origin)
        assert len(server.seen) <= 6


def test_a_registry_that_recovers_is_asked_again() -> None:
    replies = [(503, {}, b""), (429, {"Retry-After": "7"}, b""), (200, {}, b"well")]

    with serving(lambda *_: replies.pop(0)) as server, transport() as carrier:
        cancel = NoPause()
        request = Request("GET", Url(server.origin, "/"), {})
        assert carrier.fetch(request, cancel, LIMIT)[1] == b"well"
        assert cancel.waits[1] == 7.0


def test_when_to_come_again() -> None:
    soon = formatdate(time.time() + 3600, usegmt=True)
    for text, least, most in (
        ("30", 30, 30), ("100000", 60, 60), (soon, 60, 60), ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ("", 0, 0), ("-5", 0, 0), ("soon", 0, 0), ("Sun, 99 Nov 1994 08:49:37 GMT", 0, 0),
    ):  # fmt: skip
        assert least <= retry_after({"retry-after": text}) <= most, text


def test_an_endless_answer_is_cut_off() -> None:
    with (
        serving(lambda *_: (200, {}, b"x" * (LIMIT + 1))) as server,
        transport() as carrier,
        pytest.raises(ProtocolError, match="longer than"),
    ):
        get(carrier, server.origin)


def test_a_short_answer_is_an_error() -> None:
    fields = {"Content-Length": "100", "Connection": "close"}
    with (
        serving(lambda *_: (200, fields, b"short")) as server,
        transport() as carrier,
        pytest.raises(RegistryUnreachableError, match="unexpected EOF"),
    ):
        get(carrier, server.origin)


def test_cancelling_ends_a_request_that_waits() -> None:
    begun, over = threading.Event(), threading.Event()

    def script(*_: object) -> Reply:
        begun.set()
        over.wait(PATIENCE_S)
        return 200, {}, b""

    cancel = Cancel()
    with serving(script) as server, transport() as carrier:
        request = Request("GET", Url(server.origin, "/"), {})
        killer = threading.Thread(target=lambda: (begun.wait(PATIENCE_S), cancel.set()))
        killer.start()
        try:
            with pytest.raises(DeadlineError, match="cancelled"):
                carrier.send(request, cancel)
        finally:
            over.set()
            killer.join()


def test_connections_are_used_again() -> None:
    with serving(lambda *_: (200, {}, b"x")) as server, transport() as carrier:
        _same_connection(carrier, server)


def _same_connection(carrier: Transport, server: Server) -> None:
    ports = set()
    for method in ("GET", "HEAD", "GET"):
        request = Request(method, Url(server.origin, "/"), {})
        with carrier.send(request, Cancel()) as answer:
            assert answer._sock is not None
            ports.add(answer._sock.getsockname())
            answer.read(10)
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("method", "body"), [("GET", b""), ("PUT", b"whole"), ("PUT", lambda: iter([b"wh", b"ole"]))]
)
def test_a_connection_that_was_closed_while_idle(
    method: str, body: bytes | Callable[[], Iterator[bytes]]
) -> None:
    """What can be sent again is, once, on a new connection."""
    with _closing_idle() as (server, bodies), transport() as carrier:
        get(carrier, server.origin)
        request = Request(method, Url(server.origin, "/x"), {}, body)
        with carrier.send(request, Cancel(), attempts=1) as answer:
            assert answer.status == 200
    assert bodies == [b"", *[b"whole" if body else b""] * 2]


def test_a_body_that_is_used_up_is_not_sent_again() -> None:
    with _closing_idle() as (server, bodies), transport() as carrier:
        get(carrier, server.origin)
        request = Request("PATCH", Url(server.origin, "/x"), {}, iter([b"wh", b"ole"]))
        with pytest.raises(RegistryUnreachableError, match="unexpected EOF"):
            carrier.send(request, Cancel(), attempts=1)
    assert bodies == [b"", b"whole"]


@contextlib.contextmanager
def _closing_idle() -> Iterator[tuple[Server, list[bytes]]]:
    """Give a server that closes the connection instead of its second answer, and the bodies."""
    bodies: list[bytes] = []

    def script(asked: Asked) -> Reply:
        bodies.append(asked.body)
        if len(bodies) == 2:
            raise ConnectionError
        return 200, {}, b""

    with answering(script) as server:
        yield server, bodies


def test_errors_have_docker_s_words() -> None:
    body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}'
    error = error_of(404, body, "GET x")
    assert isinstance(error, UnknownToRegistryError)
    assert str(error) == "manifest unknown: manifest unknown"
    assert error.codes == ("MANIFEST_UNKNOWN",)
    denied = error_of(403, b'{"errors":[{"code":"DENIED","message":"no"}]}', "")
    assert isinstance(denied, DeniedByRegistryError)
    for nonsense in (b"", b"<html>", b"[]", b'{"errors":7}', b'{"errors":[7]}', b"\xff"):
        assert "500" in str(error_of(500, nonsense, "GET x"))
