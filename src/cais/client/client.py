"""Requests to the daemon: one connection each, the API version agreed on once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cais.client.hijack import Hijacked
from cais.client.http1 import ProtocolError, Reader, encode_chunks, encode_head, read_head
from cais.client.response import Response
from cais.errors import UnavailableError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence

    from cais.client.address import Address

MAX_VERSION = (1, 51)
_SAFE = frozenset("-._~/:@!$'()*,0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class Client:
    """A daemon's API at ``address``; holds no connection between requests.

    Args:
        address: where the daemon listens.
        version: the API version to speak, as ``1.44``; agreed on by a ping if not given.

    """

    def __init__(self, address: Address, version: str | None = None) -> None:
        self.address = address
        self._version = version

    @property
    def version(self) -> str:
        """The API version spoken: the lower of the daemon's and our highest."""
        if self._version is None:
            self._version = _lower_version(self.ping().get("api-version", ""))
        return self._version

    def ping(self, timeout_s: float | None = None) -> Mapping[str, str]:
        """Return the header fields of the daemon's pong.

        Raises:
            UnavailableError: nobody answers.
            DeadlineError: somebody is there, who does not answer in time.

        """
        with self._send("HEAD", "/_ping", (), None, timeout_s) as response:
            response.raise_for_status()
            return response.fields

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Response:
        """GET ``path``. Raises the CaisError an error answer means."""
        return self.request("GET", path, query)

    def post(
        self,
        path: str,
        query: Mapping[str, object] | None = None,
        document: object = None,
        *,
        body: Iterable[bytes] | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """POST a JSON document, or a stream of bytes. Raises as :meth:`get`."""
        return self.request("POST", path, query, document, body=body, headers=headers)

    def delete(self, path: str, query: Mapping[str, object] | None = None) -> Response:
        """DELETE ``path``. Raises as :meth:`get`."""
        return self.request("DELETE", path, query)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        document: object = None,
        *,
        body: Iterable[bytes] | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """Send one request and return its answer, the body still to be read.

        Args:
            method: the HTTP method.
            path: without version; its parts already encoded (:func:`quote`).
            query: None values are left out, True and False become ``1`` and ``0``,
                a list repeats its name.
            document: sent as JSON.
            body: sent as a chunked stream (a tar archive).
            headers: sent as well.

        Raises:
            CaisError: what an error answer means; UnavailableError if nobody answers.

        """
        fields, data = _encode_body(document, body)
        target = f"/v{self.version}{path}{encode_query(query)}"
        response = self._send(method, target, [*fields, *headers], data)
        response.raise_for_status()
        return response

    def hijack(
        self, path: str, query: Mapping[str, object] | None = None, document: object = None
    ) -> Hijacked:
        """POST with an upgrade and take the connection over. Raises as :meth:`request`."""
        fields, data = _encode_body(document, None)
        upgrade = [*fields, ("Connection", "Upgrade"), ("Upgrade", "tcp")]
        target = f"/v{self.version}{path}{encode_query(query)}"
        connection = self.address.connect()
        try:
            _write(connection, encode_head("POST", target, [("Host", "cais"), *upgrade]), data)
            reader = Reader(connection)
            head = read_head(reader)
            if head.status not in (101, 200):
                Response(connection, reader, head, "POST").raise_for_status()
                raise ProtocolError(  # noqa: TRY301 - closes the connection below
                    f"the daemon answered an upgrade with {head.status}"
                )
        except BaseException:
            connection.close()
            raise
        return Hijacked(connection, reader.steal_buffer())

    def _send(
        self,
        method: str,
        target: str,
        fields: Iterable[tuple[str, str]],
        data: bytes | Iterable[bytes] | None,
        timeout_s: float | None = None,
    ) -> Response:
        connection = self.address.connect(timeout_s or 10)
        connection.settimeout(timeout_s)
        head = encode_head(method, target, [("Host", "cais"), ("Connection", "close"), *fields])
        try:
            _write(connection, head, data)
            reader = Reader(connection)
            return Response(connection, reader, read_head(reader), method)
        except BaseException:
            connection.close()
            raise


def quote(text: str) -> str:
    """Return ``text`` percent-encoded for a path or a query (RFC 3986 section 2)."""
    return "".join(
        character if character in _SAFE else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in text
    )


def encode_query(query: Mapping[str, object] | None) -> str:
    """Return ``?name=value&...`` of the parameters that have a value, or nothing."""
    pairs = []
    for name, value in (query or {}).items():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if item is not None:
                text = str(int(item)) if isinstance(item, bool) else str(item)
                pairs.append(f"{quote(name)}={quote(text)}")
    return "?" + "&".join(pairs) if pairs else ""


def _encode_body(
    document: object, body: Iterable[bytes] | None
) -> tuple[list[tuple[str, str]], bytes | Iterable[bytes] | None]:
    if body is not None:
        kind = ("Content-Type", "application/x-tar")
        return [kind, ("Transfer-Encoding", "chunked")], encode_chunks(body)
    if document is None:
        return [("Content-Length", "0")], None
    data = json.dumps(document).encode()
    return [("Content-Type", "application/json"), ("Content-Length", str(len(data)))], data


def _write(connection: socket.socket, head: bytes, data: bytes | Iterable[bytes] | None) -> None:
    """Send a request; a daemon that stopped reading has answered already."""
    try:
        if data is None or isinstance(data, bytes):
            connection.sendall(head + (data or b""))
            return
        connection.sendall(head)
        for piece in data:
            connection.sendall(piece)
    except TimeoutError as error:
        raise UnavailableError("the daemon does not read the request") from error
    except ConnectionError:
        return


def _lower_version(text: str) -> str:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ProtocolError(f"the daemon names no API version: {text[:40]!r}")
    return "{}.{}".format(*min(MAX_VERSION, (int(major), int(minor))))
