"""Servers that answer as a test says, on loopback."""

from __future__ import annotations

import contextlib
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

from cais.registry.origin import Origin, make_origin
from cais.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Reply = tuple[int, dict[str, str], bytes | Iterable[bytes]]
    """Status, fields, body. Pieces without a Content-Length field end with the connection."""

    Script = Callable[[str, str, dict[str, str]], Reply]


class Asked(NamedTuple):
    """A request; the names of fields are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Server:
    """A server and what it was asked: (method, target, headers with lower-case names)."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    def secrets(self) -> list[str]:
        """Return every Authorization it was sent."""
        return [
            headers["authorization"] for _, _, headers in self.seen if "authorization" in headers
        ]


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Server]:
    """Answer each request with ``script(method, target, headers)``."""
    with answering(lambda asked: script(asked.method, asked.target, asked.headers)) as server:
        yield server


@contextlib.contextmanager
def answering(
    script: Callable[[Asked], Reply], context: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[Server]:
    """Answer each request with ``script(asked)``, by TLS with ``context``; port 0: any."""
    with _Listener(("127.0.0.1", port), _Handler) as listener:
        if context is not None:
            listener.socket = context.wrap_socket(
                listener.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if context is None else "https"
        server = Server(make_origin(scheme, "127.0.0.1", listener.server_address[1]))
        listener.script, listener.seen = script, server.seen
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    script: Callable[[Asked], Reply]
    seen: list[tuple[str, str, dict[str, str]]]

    def handle_error(self, *_: object) -> None:
        return  # clients break off: that is what is tested


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    server: _Listener

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self.body(headers))
        self.server.seen.append(asked[:3])
        status, fields, content = self.server.script(asked)
        self.send_response(status)
        if isinstance(content, bytes):
            fields = {"Content-Length": str(len(content)), **fields}
        elif "Content-Length" not in fields:
            fields = {**fields, "Connection": "close"}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.write(content)

    def body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", "0")))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def write(self, content: bytes | Iterable[bytes]) -> None:
        with contextlib.suppress(OSError):  # a client may have heard enough
            for piece in [content] if isinstance(content, bytes) else content:
                self.wfile.write(piece)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def transport() -> Iterator[Transport]:
    """Give a transport that verifies TLS as usual, closed at the end."""
    made = Transport(lambda _: ssl.create_default_context())
    try:
        yield made
    finally:
        made.close()
