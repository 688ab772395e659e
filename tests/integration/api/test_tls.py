"""TLS in front of the API: who gets in, and the half-close."""

import asyncio
import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from cais.api.listeners import TcpAddress, open_tcp
from cais.errors import InvalidArgumentError
from cais.http.connection import Head, Patience, RequestBody
from cais.http.messages import FileRange, Hijack, Response
from cais.http.server import Server
from cais.http.tls import make_context
from cais.registry.trust import verifying_context
from cais.testing.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two authorities, a server, and clients: good, of another authority, of another use."""
    directory = tmp_path_factory.mktemp("pki")
    for authority in ("ca", "evil"):
        _openssl(
            directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", f"{authority}.key", "-out", f"{authority}.pem",
            "-subj", f"/CN={authority}", "-days", "2",
        )  # fmt: skip
    _certify(directory, "server", "ca", "serverAuth")
    _certify(directory, "client", "ca", "clientAuth")
    _certify(directory, "stranger", "evil", "clientAuth")
    return directory


def _certify(directory: Path, name: str, authority: str, use: str) -> None:
    (directory / f"{name}.ext").write_text(f"extendedKeyUsage={use}\nsubjectAltName=IP:127.0.0.1\n")
    _openssl(
        directory, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
    )  # fmt: skip
    _openssl(
        directory, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem",
        "-CAkey", f"{authority}.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
        "-extfile", f"{name}.ext",
    )  # fmt: skip
    (directory / f"{name}.key").chmod(0o600)


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def _server_context(pki: Path) -> ssl.SSLContext:
    return make_context(pki / "server.pem", pki / "server.key", pki / "ca.pem")


async def _echo(head: Head, _: RequestBody) -> Response | Hijack:
    async def serve(sock: socket.socket, unread: bytes) -> None:
        loop = asyncio.get_running_loop()
        received = unread
        while data := await loop.sock_recv(sock, 1 << 16):
            received += data
        await loop.sock_sendall(sock, received.upper())

    if head.target == "/echo":
        return Hijack(serve, lambda: None, "application/x")
    return Response(200, b"OK")


def _speak(port: int, context: ssl.SSLContext, request: bytes, tail: bytes = b"") -> bytes:
    """Send a request over TLS and, if there is a tail, a close_notify behind it; read all."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

        def exchange(step: "object") -> bytes:
            while True:
                try:
                    result = step()  # type: ignore[operator]
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    data = raw.recv(1 << 16)
                    incoming.write(data) if data else incoming.write_eof()
                else:
                    raw.sendall(outgoing.read())
                    return result if isinstance(result, bytes) else b""

        exchange(tls.do_handshake)
        exchange(lambda: tls.write(request + tail))
        if tail:
            try:
                tls.unwrap()
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
        received = b""
        while True:
            try:
                data = exchange(lambda: tls.read(1 << 16))
            except ssl.SSLZeroReturnError:  # the alert: nothing was cut off
                return received
            received += data
            if not data:
                return received


async def _ask(pki: Path, client: ssl.SSLContext, request: bytes, tail: bytes = b"") -> bytes:
    sock = open_tcp(TcpAddress("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = Server(_echo)
    server.listen(sock, _server_context(pki))
    try:
        return await asyncio.to_thread(_speak, port, client, request, tail)
    finally:
        await server.close(grace_s=0)


def _client_context(pki: Path, name: str | None) -> ssl.SSLContext:
    context = verifying_context()  # as a Docker client: the authority states no key usage
    context.load_verify_locations(pki / "ca.pem")
    if name:
        context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    return context


PING = b"GET /_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def test_certified_client_is_served(pki: Path) -> None:
    answer = await _ask(pki, _client_context(pki, "client"), PING)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"OK")


@pytest.mark.parametrize("name", [None, "stranger", "server"])
async def test_others_are_not(pki: Path, name: str | None) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _ask(pki, _client_context(pki, name), PING)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_versions_are_refused(pki: Path) -> None:
    context = _client_context(pki, "client")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _ask(pki, context, PING)


async def test_half_close_keeps_the_answer(pki: Path) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    tail = os.urandom(300_000).hex().encode()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = _client_context(pki, "client")
        context.maximum_version = version
        answer = await _ask(pki, context, request, tail)
        assert answer.partition(b"\r\n\r\n")[2] == tail.upper()


def test_key_others_may_read_is_refused(pki: Path, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    key.write_bytes((pki / "server.key").read_bytes())
    key.chmod(0o644)
    with pytest.raises(InvalidArgumentError, match="other users may read it"):
        make_context(pki / "server.pem", key, pki / "ca.pem")
    with pytest.raises(InvalidArgumentError, match="could not load the TLS files"):
        make_context(pki / "none.pem", pki / "server.key", pki / "ca.pem")


async def test_who_takes_nothing_is_given_up_behind_tls_too(pki: Path, tmp_path: Path) -> None:
    size = 1 << 26
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)

    async def application(_: Head, __: RequestBody) -> FileRange:
        return FileRange((tmp_path / "file").open("rb"), 0, size)

    sock = open_tcp(TcpAddress("127.0.0.1", 0))
    address = sock.getsockname()
    server = Server(application, patience=Patience(stall_s=0.5))
    server.listen(sock, make_context(pki / "server.pem", pki / "server.key", None))
    context = _client_context(pki, None)

    def ask() -> ssl.SSLSocket:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(60)
        raw.connect(address)
        client = context.wrap_socket(raw, server_hostname="127.0.0.1")
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.recv(1)
        return client

    client = await asyncio.to_thread(ask)
    async with asyncio.timeout(60):
        while server._fronts or server._connections:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    client.close()
    await server.close(grace_s=0)
