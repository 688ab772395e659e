"""Servers that answer as a test says, on loopback."""

from __future__ import annotations

import contextlib
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cais.registry.origin import Origin, make_origin
from cais.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Reply = tuple[int, dict[str, str], bytes]
    Script = Callable[[str, str, dict[str, str]], Reply]


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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.rfile.read(int(headers.get("content-length", "0")))
            server.seen.append((self.command, self.path, headers))
            status, fields, body = script(self.command, self.path, headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **fields}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        server = Server(make_origin("http", "127.0.0.1", listener.server_address[1]))
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown()
            thread.join()


@contextlib.contextmanager
def transport() -> Iterator[Transport]:
    """Give a transport that verifies TLS as usual, closed at the end."""
    made = Transport(lambda _: ssl.create_default_context())
    try:
        yield made
    finally:
        made.close()
