"""A registry that means harm: rows D1, D4, D5 and D6 of the threat sheet, on the wire.

What comes of a whole pull is in ``unit/images/test_evil_pulls.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from cais.registry import answers
from cais.registry import transport as transport_module
from cais.registry.answers import Request
from cais.registry.auth import TOKEN_LIMIT_BYTES, Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import Credentials
from cais.registry.discovery import tags
from cais.registry.errors import ProtocolError, RegistryError, RegistryUnreachableError
from cais.registry.origin import InvalidUrlError, Origin, Url, make_origin, parse_url
from cais.registry.repository import Repository
from cais.spec.digest import Digest
from cais.testing.scripted_registry import answering, serving, transport
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.registry.transport import Transport
    from cais.testing.scripted_registry import Asked, Reply

USER = Credentials("jane", "secret")
DIGEST = Digest(f"sha256:{'0' * 64}")
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}
MIB = 1024 * 1024
PIECE = bytes(64 * 1024)


class Unhurried(Cancel):
    """Waits that take no time."""

    def sleep(self, seconds: float) -> None:
        del seconds


def repository(carrier: Transport, origin: Origin, *, can_push: bool = False) -> Repository:
    auth = Authenticator(carrier, origin, USER)
    return Repository(carrier, origin, "team/box", auth, Cancel(), can_push=can_push)


def welcoming(asked: Asked, reply: Reply) -> Reply:
    """Ask for a password first."""
    return reply if "authorization" in asked.headers else (401, BASIC, b"{}")


# D1: where a password goes


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_d1_cve_2020_15157_a_blob_kept_elsewhere(status: int) -> None:
    with answering(lambda _: (200, {}, b"bytes")) as elsewhere:
        place = {"Location": f"{elsewhere.origin}/blob", "Set-Cookie": "session=secret"}
        with (
            answering(lambda asked: welcoming(asked, (status, place, b""))) as server,
            transport() as carrier,
        ):
            with repository(carrier, server.origin).open_blob(DIGEST) as (_, pieces):
                assert b"".join(pieces) == b"bytes"
            assert server.secrets() == ["Basic amFuZTpzZWNyZXQ="]
    ((_, _, headers),) = elsewhere.seen
    assert not {"authorization", "cookie", "proxy-authorization"}.intersection(headers)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_d1_an_upload_to_elsewhere_takes_no_password_along(method: str) -> None:
    with answering(lambda _: (202, {"Location": "/next"}, b"")) as elsewhere:
        place = {"Location": f"{elsewhere.origin}/upload"}
        with (
            answering(lambda asked: welcoming(asked, (202, place, b""))) as server,
            transport() as carrier,
        ):
            target = repository(carrier, server.origin, can_push=True)
            where = target.begin_upload()
            if method == "PUT":
                target.upload_blob(DIGEST, 3, lambda: [b"abc"], where)
            else:
                target.finish_upload(DIGEST, target.stream_blob([b"abc"], where))
            assert server.secrets()
    assert elsewhere.seen
    assert not elsewhere.secrets()


def test_d1_a_next_page_elsewhere_gets_no_password() -> None:
    with answering(lambda _: (200, {}, b'{"tags":["there"]}')) as elsewhere:
        link = {"Link": f'<{elsewhere.origin}/v2/x/tags/list>; rel="next"'}
        with (
            answering(lambda asked: welcoming(asked, (200, link, b'{"tags":["a"]}'))) as server,
            transport() as carrier,
        ):
            assert tags(repository(carrier, server.origin)) == ["a", "there"]
    assert not elsewhere.secrets()


def test_d1_a_challenge_of_elsewhere_is_not_answered() -> None:
    """Where a redirect leads may ask for a password as it likes."""
    with answering(lambda _: (401, BASIC, b"{}")) as elsewhere:
        place = {"Location": f"{elsewhere.origin}/blob"}
        with (
            answering(lambda asked: welcoming(asked, (307, place, b""))) as server,
            transport() as carrier,
            pytest.raises(RegistryError),
            repository(carrier, server.origin).open_blob(DIGEST),
        ):
            pass
    assert not elsewhere.secrets()


@pytest.mark.parametrize(
    "reference",
    [
        *("http://registry.example.com/x", "http://registry.example.com:443/x", "//a@b/x"),
        *("file:///etc/passwd", "unix:///run/docker.sock", "gopher://x/", "https://a:b@x/"),
        *("https://x\r\nHost: y/", "https://\u0430pple.com/", "https://x..y/"),
    ],
)
def test_d1_where_no_link_may_lead(reference: str) -> None:
    with pytest.raises(InvalidUrlError):
        parse_url("https://registry.example.com/v2/").join(reference)


@pytest.mark.parametrize("host", ["REGISTRY.example.com", "registry.example.com."])
def test_d1_one_host_in_other_letters_is_the_same(host: str) -> None:
    assert make_origin("https", host) == make_origin("https", "registry.example.com")


# D4: bodies and headers without an end


def endless() -> Iterator[bytes]:
    return itertools.repeat(PIECE)


class Counted:
    """Pieces without an end, and how many bytes of them were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in endless():
            self.taken += len(piece)
            yield piece


@pytest.mark.parametrize("length", [{}, {"Content-Length": str(10**18)}])
def test_d4_a_manifest_without_an_end(length: dict[str, str]) -> None:
    body = Counted()
    with (
        serving(lambda *_: (200, length, body)) as server,
        transport() as carrier,
        pytest.raises(ProtocolError, match="longer than"),
    ):
        repository(carrier, server.origin).get_manifest("latest")
    assert body.taken < 32 * MIB


def test_d4_a_token_without_an_end() -> None:
    body = Counted()
    with serving(lambda *_: (200, {}, body)) as server, transport() as carrier:
        auth = Authenticator(carrier, server.origin, USER)
        auth.learn(f'Bearer realm="{server.origin}/token"', "")
        with pytest.raises(ProtocolError, match=f"longer than {TOKEN_LIMIT_BYTES}"):
            auth.authorize("", Cancel())
    assert body.taken < 32 * MIB


def test_d4_an_error_without_an_end() -> None:
    body = Counted()
    with (
        serving(lambda *_: (404, {}, body)) as server,
        transport() as carrier,
        pytest.raises(RegistryError, match="404"),
    ):
        repository(carrier, server.origin).get_manifest("latest")
    assert body.taken < 32 * MIB


def test_d4_tags_without_an_end() -> None:
    link = {"Link": '</v2/x/tags/list?again>; rel="next"'}
    with (
        serving(lambda *_: (200, link, b'{"tags":["a"]}')) as server,
        transport() as carrier,
        pytest.raises(ProtocolError, match="more than 1000 pages"),
    ):
        tags(repository(carrier, server.origin))
    assert len(server.seen) == 1000


@contextlib.contextmanager
def raw_server(answer: Iterator[bytes]) -> Iterator[Origin]:
    """Send bytes to whoever connects, once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                for piece in answer:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield make_origin("http", "127.0.0.1", listener.getsockname()[1])
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"x" * 65536)),
        itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X: y\r\n" * 10_000)),
        itertools.chain([b"HTTP/1.1 "], itertools.repeat(b"2" * 65536)),
        iter([b"nothing like HTTP\r\n\r\n"]),
        iter([b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"]),
        iter([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n"]),
        iter([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n"]),
        iter([b""]),
    ],
    ids=["line", "fields", "status", "words", "length", "chunk", "negative", "nothing"],
)
def test_d4_heads_without_an_end_and_without_sense(answer: Iterator[bytes]) -> None:
    with raw_server(answer) as origin, transport() as carrier:
        request = Request("GET", Url(origin, "/"), {})
        with pytest.raises((RegistryUnreachableError, ProtocolError)):
            read_json(carrier, request)


def read_json(carrier: Transport, request: Request) -> object:
    """Read an answer that has to be JSON; one that says nothing is none."""
    with carrier.send(request, Cancel(), attempts=1) as reply:
        content = reply.read(100)
    try:
        return json.loads(content)
    except ValueError as exc:
        raise ProtocolError("no JSON") from exc


# D5: other bytes than were asked for


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Content-Range": "bytes 0-9/10"},
        {"Content-Range": "bytes 6-9/10"},
        {"Content-Range": "bytes=5-9/10"},
        {"Content-Range": "bytes 5-4294967296999999999999/10"},
    ],
)
def test_d5_another_part_than_was_asked_for(fields: dict[str, str]) -> None:
    with (
        serving(lambda *_: (206, fields, b"bytes")) as server,
        transport() as carrier,
        pytest.raises(ProtocolError, match="another range"),
        repository(carrier, server.origin).open_blob(DIGEST, 5),
    ):
        pass


def test_d5_nothing_is_decoded_on_the_way() -> None:
    """A digest is of the bytes as they come, whatever the server calls them."""
    fields = {"Content-Encoding": "gzip"}
    with (
        serving(lambda *_: (200, fields, b"\x1f\x8bas it is")) as server,
        transport() as carrier,
        repository(carrier, server.origin).open_blob(DIGEST) as (_, pieces),
    ):
        assert b"".join(pieces) == b"\x1f\x8bas it is"
    assert server.seen[0][2]["accept-encoding"] == "identity"


# D6: registries that stall


def test_d6_redirects_in_a_ring() -> None:
    with (
        serving(lambda *_: (307, {"Location": "/again"}, b"")) as server,
        transport() as carrier,
        pytest.raises(ProtocolError, match="more than 5 redirects"),
    ):
        repository(carrier, server.origin).get_manifest("latest")
    assert len(server.seen) == 6


def test_d6_an_answer_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "ANSWER_TIMEOUT_S", 0.1)
    over = threading.Event()

    def script(*_: object) -> Reply:
        over.wait(60)
        return 200, {}, b""

    with serving(script) as server, transport() as carrier:
        request = Request("GET", Url(server.origin, "/"), {})
        try:
            with pytest.raises(RegistryUnreachableError, match="deadline exceeded"):
                carrier.send(request, Cancel(), attempts=1)
        finally:
            over.set()


def test_d6_a_body_that_crawls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is in time; all of them together are not."""
    monkeypatch.setattr(answers, "_SLOW_AFTER_S", 0.2)
    over = threading.Event()

    def crawling() -> Iterator[bytes]:
        while not over.wait(0.02):
            yield b"x"

    with serving(lambda *_: (200, {}, crawling())) as server, transport() as carrier:
        request = Request("GET", Url(server.origin, "/"), {})
        try:
            with (
                carrier.send(request, Cancel(), attempts=1) as reply,
                pytest.raises(RegistryUnreachableError, match="too slow"),
            ):
                reply.read(MIB)
        finally:
            over.set()


def test_d6_a_handshake_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "CONNECT_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener, transport() as carrier:
        origin = make_origin("https", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(RegistryUnreachableError, match="deadline exceeded"):
            carrier.send(Request("GET", Url(origin, "/"), {}), Cancel(), attempts=1)


def test_d6_failures_leave_no_descriptor_and_no_thread() -> None:
    def script(*_: object) -> Reply:
        return 200, {"Content-Length": "100", "Connection": "close"}, b"short"

    def left() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with serving(script) as server, transport() as carrier:
        before = left()
        for _ in range(50):
            request = Request("GET", Url(server.origin, "/"), {})
            with (
                pytest.raises(RegistryUnreachableError),
                carrier.send(request, Cancel()) as reply,
            ):
                reply.read(100)
        # The server's side of the last ones may take a moment.
        wait_until(lambda: all(now <= then for now, then in zip(left(), before, strict=True)))


def test_d1_tls_is_verified_on_every_way(tmp_path: os.PathLike[str]) -> None:
    """CVE-2019-10214: a token server is held to what the registry is held to."""
    context = _self_signed(tmp_path)
    with answering(lambda _: (200, {}, b'{"token":"t"}'), context) as server:
        with transport() as carrier:
            auth = Authenticator(carrier, server.origin, USER)
            auth.learn(f'Bearer realm="{server.origin}/token"', "")
            with pytest.raises(RegistryUnreachableError, match="failed to verify certificate"):
                auth.authorize("", Unhurried())
        assert not server.seen


def _self_signed(directory: os.PathLike[str]) -> ssl.SSLContext:
    from pathlib import Path

    from cais.testing.token_server import prepare

    prepare(Path(directory), 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(directory, "certificate.pem"), Path(directory, "key.pem"))
    return context
