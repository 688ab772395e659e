"""TLS in front of a connection, with half-close, which asyncio's TLS transports do not have.

``docker run -i`` over TCP ends its input with a close_notify alert and goes on reading. Here the
alert becomes an end of file on a socket pair whose other end is served like any connection.

Spec: RFC 8446 section 6.1; SECURITY.md 3.7 "TLS".
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pathlib import Path

HANDSHAKE_S = 30.0
_CIPHERS = ":".join(
    f"ECDHE-{signer}-{cipher}"
    for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305")
    for signer in ("ECDSA", "RSA")
)
_READ_BYTES = 256 * 1024


def make_context(certificate: Path, key: Path, authority: Path | None) -> ssl.SSLContext:
    """Make a server's context.

    Args:
        certificate: the server's own, with what leads to its authority.
        key: of the certificate.
        authority: only clients certified by it are accepted; None: everybody is.

    Raises:
        InvalidArgumentError: a file cannot be used, or others may read the key.

    """
    try:
        if key.stat().st_mode & 0o007:
            raise InvalidArgumentError(f"TLS key {key}: other users may read it")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.load_cert_chain(certificate, key)
        if authority is not None:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as exc:  # an SSLError is one too
        raise InvalidArgumentError(f"could not load the TLS files: {exc}") from exc
    return context


async def carry(encrypted: socket.socket, plain: socket.socket, context: ssl.SSLContext) -> None:
    """Do the server's part of TLS between two non-blocking sockets; both are closed at the end.

    Raises:
        OSError: the handshake failed (an SSLError), or the peer broke the connection.
        TimeoutError: no handshake in ``HANDSHAKE_S``.

    """
    with encrypted, plain:
        session = _Session(encrypted, context)
        async with asyncio.timeout(HANDSHAKE_S):
            await session.handshake()
        inward = asyncio.ensure_future(_carry_in(session, plain))
        try:
            await _carry_out(plain, session)
        finally:
            inward.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await inward


async def _carry_in(session: _Session, plain: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await session.receive():
            await loop.sock_sendall(plain, data)
        plain.shutdown(socket.SHUT_WR)


async def _carry_out(plain: socket.socket, session: _Session) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(plain, _READ_BYTES):
        await session.send(data)
    await session.send_end()


class _Session:
    """OpenSSL's state machine, fed from and flushed to a socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._flushing = asyncio.Lock()

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise ConnectionResetError("left during the handshake") from None
            except ssl.SSLError:
                await self._flush()  # the alert that says why
                raise
            else:
                return await self._flush()

    async def receive(self) -> bytes:
        """Return decrypted bytes; b"" at the peer's end, with or without its alert."""
        while True:
            try:
                data = self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()  # answers to key updates
                if not await self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""
            else:
                return data

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def send_end(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()
        self._sock.shutdown(socket.SHUT_WR)

    async def _fill(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self._sock, _READ_BYTES)
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        async with self._flushing:
            while data := self._outgoing.read():
                await asyncio.get_running_loop().sock_sendall(self._sock, data)
