"""SECURITY.md F-26: registries that reset, stall out, refuse ranges or change their mind mid-layer.

Whatever the registry does, what is stored in the end has its digest, or nothing is stored; the
attempts are counted; what was received is used where the registry lets it be.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import ssl
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cais.errors import CaisError, DataLossError
from cais.images import downloads
from cais.images.downloads import Downloads
from cais.images.policy import Policy
from cais.images.pulling import Pull
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.errors import RegistryUnreachableError
from cais.registry.origin import Origin, make_origin
from cais.registry.repository import Repository
from cais.registry.transport import MAX_ATTEMPTS, Transport
from cais.spec.digest import digest_of
from cais.spec.image import OCI_LAYER_GZIP
from cais.spec.reference import parse_reference
from cais.testing.image_store import left_over, open_image_store
from cais.testing.registry_shelf import PATH, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.images.store import ImageStore
    from cais.testing.scripted_registry import Reply

MEMBERS = 4000
PLAIN = bytes(512 * MEMBERS)  # an empty archive: unpacking it needs no privilege
LAYER = b"".join(gzip.compress(bytes(512), mtime=number) for number in range(MEMBERS))
"""No two places of it are alike."""

TARGET = f"/v2/{PATH}/blobs/{digest_of(LAYER)}"


class Break(NamedTuple):
    """How an answer ends before its time."""

    after: int
    """Bytes of the blob's rest, from where it begins."""

    is_reset: bool = True
    """RST, or else FIN; with TLS neither says goodbye."""


class Registry:
    """An honest registry but for one layer, about which ``script`` decides."""

    def __init__(self, script: Callable[[int, Reply], Reply | Break]) -> None:
        self.shelf = Shelf([PLAIN], [LAYER], OCI_LAYER_GZIP)
        self.ranges: list[str] = []
        """What was asked of the layer, in order; "" for all of it."""

        self._script = script

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        reply = self.shelf.answer("GET", handler.path, headers)
        broken: Break | None = None
        if handler.path == TARGET:
            self.ranges.append(headers.get("range", ""))
            decided = self._script(len(self.ranges), reply)
            if isinstance(decided, Break):
                broken = decided
            else:
                reply = decided
        status, fields, content = reply
        assert isinstance(content, bytes)
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **fields}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content if broken is None else content[: broken.after])
        if broken is not None:
            hang_up(handler, broken)


def hang_up(handler: BaseHTTPRequestHandler, broken: Break) -> None:
    if broken.is_reset:
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    os.close(handler.connection.detach())
    handler.close_connection = True


@contextlib.contextmanager
def serving(registry: Registry, context: ssl.SSLContext | None = None) -> Iterator[Origin]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.answer(self)

        def log_message(self, *_: object) -> None:
            return

    class Listener(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            return  # of what was hung up

    with Listener(("127.0.0.1", 0), Handler) as listener:
        if context is not None:
            listener.socket = context.wrap_socket(
                listener.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            scheme = "http" if context is None else "https"
            yield make_origin(scheme, "127.0.0.1", listener.server_address[1])
        finally:
            listener.shutdown()
            thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path / "root") as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_RETRY_PAUSE_S", 0)
    monkeypatch.setattr(Cancel, "sleep", lambda cancel, _: cancel.check())


def pull(
    store: ImageStore,
    registry: Registry,
    server: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
) -> None:
    carrier = Transport(lambda _: client or ssl.create_default_context())
    with serving(registry, server) as origin:
        try:
            cancel = Cancel()
            auth = Authenticator(carrier, origin, ANONYMOUS)
            source = Repository(carrier, origin, PATH, auth, cancel)
            name = parse_reference("example.com/team/box:latest")
            Pull(
                store, Downloads(store.content), source, name,
                platform=None, policy=Policy("none"), cancel=cancel, report=lambda _: None,
            ).run()  # fmt: skip
        finally:
            carrier.close()


def assert_whole(store: ImageStore) -> None:
    (layer,) = store.resolve("example.com/team/box").layers
    assert store.content.read(layer.blob, 1 << 20) == LAYER
    assert not list(store.content._ingest.iterdir())


def share(percent: int) -> int:
    return len(LAYER) * percent // 100


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "end"])
@pytest.mark.parametrize("after", [0, share(1), share(50), share(99), len(LAYER) - 1])
def test_one_break(store: ImageStore, after: int, is_reset: bool) -> None:
    registry = Registry(lambda turn, reply: Break(after, is_reset) if turn == 1 else reply)
    pull(store, registry)
    assert_whole(store)
    first, *later = registry.ranges
    assert (first, len(later)) == ("", 1)
    if not is_reset:  # with a reset, what was not read yet is lost
        assert later == [f"bytes={after}-" if after else ""]


def test_a_reset_after_the_last_byte(store: ImageStore) -> None:
    """The client may have all of it, or has to ask for the rest; either is right."""
    registry = Registry(lambda turn, reply: Break(len(LAYER)) if turn == 1 else reply)
    pull(store, registry)
    assert_whole(store)
    assert len(registry.ranges) <= 2


def test_breaks_that_go_on_while_there_is_progress(store: ImageStore) -> None:
    registry = Registry(
        lambda turn, reply: Break(share(20), is_reset=False) if turn < MAX_ATTEMPTS else reply
    )
    pull(store, registry)
    assert_whole(store)
    assert registry.ranges == ["", *(f"bytes={share(20) * n}-" for n in range(1, MAX_ATTEMPTS))]


@pytest.mark.parametrize("after", [0, share(10)])
def test_resets_without_an_end_are_given_up(store: ImageStore, after: int) -> None:
    registry = Registry(lambda *_: Break(after))
    before = left_over(store)
    with pytest.raises(RegistryUnreachableError):
        pull(store, registry)
    assert MAX_ATTEMPTS <= len(registry.ranges) <= MAX_ATTEMPTS**2
    assert left_over(store) == before == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_is_out_of_breath(store: ImageStore, status: int) -> None:
    """In the middle of a layer, after a break; ``Retry-After`` is 0."""

    def script(turn: int, reply: Reply) -> Reply | Break:
        if turn == 1:
            return Break(share(50), is_reset=False)
        return (status, {"Retry-After": "0"}, b"{}") if turn == 2 else reply

    registry = Registry(script)
    pull(store, registry)
    assert_whole(store)
    assert registry.ranges[-1] == f"bytes={share(50)}-"


def test_ranges_that_are_not_supported_mean_all_of_it_again(store: ImageStore) -> None:
    def script(turn: int, _: Reply) -> Reply | Break:
        return Break(share(50), is_reset=False) if turn == 1 else (200, {}, LAYER)

    registry = Registry(script)
    pull(store, registry)
    assert_whole(store)
    assert registry.ranges == ["", f"bytes={share(50)}-"]


@pytest.mark.parametrize(
    "place", ["bytes 0-9/10", f"bytes 0-{len(LAYER) - 1}/{len(LAYER)}", "bytes x", "lines 1-2/3"]
)
def test_another_range_than_was_asked_for(store: ImageStore, place: str) -> None:
    """Never taken for the right one: refused, or all of it is fetched."""

    def script(turn: int, _: Reply) -> Reply | Break:
        if turn == 1:
            return Break(share(50), is_reset=False)
        return 206, {"Content-Range": place}, LAYER[share(50) :]

    registry = Registry(script)
    with pytest.raises(CaisError):
        pull(store, registry)
    assert len(registry.ranges) <= MAX_ATTEMPTS**2
    assert left_over(store) == []


@pytest.mark.parametrize("length", [len(LAYER), len(LAYER) - 100, len(LAYER) + 100])
def test_content_that_changed_between_the_attempts(store: ImageStore, length: int) -> None:
    other = os.urandom(length)

    def script(turn: int, _: Reply) -> Reply | Break:
        if turn == 1:
            return Break(share(50), is_reset=False)
        place = f"bytes {share(50)}-{length - 1}/{length}"
        return 206, {"Content-Range": place}, other[share(50) :]

    with pytest.raises((DataLossError, RegistryUnreachableError)):
        pull(store, Registry(script))
    assert left_over(store) == []


@pytest.mark.parametrize("after", [share(50), len(LAYER)])
def test_tls_that_ends_without_a_goodbye(store: ImageStore, tmp_path: Path, after: int) -> None:
    """Without close_notify an end may be an attacker's; the digest tells."""
    names = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", "key", "-out", "certificate", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    client = ssl.create_default_context(cafile=os.fspath(tmp_path / "certificate"))
    registry = Registry(lambda turn, reply: Break(after, is_reset=False) if turn == 1 else reply)
    pull(store, registry, server, client)
    assert_whole(store)
    assert len(registry.ranges) <= 2
