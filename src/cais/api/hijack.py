"""A hijacked connection: bytes both ways between a client and a container's streams.

The client's half-close (the end of its stdin) is passed on; the container's end closes the client.
A client that closes altogether is noticed even while the container writes nothing.

Nothing follows the head of the answer before the client has read that: docker-py reads heads
through a buffer which it then leaves aside, with all that arrived together with the head.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cais.spec.detach_keys import DetachScanner

_BUFFER_BYTES = 256 * 1024
_YIELD_BYTES = 1024 * 1024
_HEAD_LIMIT_S = 5.0


async def pump(
    client: socket.socket,
    session: socket.socket,
    *,
    unread: bytes = b"",
    scanner: DetachScanner | None = None,
) -> bool:
    """Carry bytes until the session ends, the client goes, or the detach keys are typed.

    Both sockets must be non-blocking; they are borrowed.

    Args:
        client: the hijacked connection.
        session: the container's side; its end of file ends the pump.
        unread: what the client sent before it was handed over.
        scanner: looks for the detach keys in what the client sends; None where there are none.

    Returns:
        Whether the client detached by the keys.

    """
    output = asyncio.ensure_future(_deliver(session, client))
    entry = asyncio.ensure_future(_feed(client, session, unread, scanner))
    hangup = asyncio.ensure_future(_hangup_after(entry, client))
    try:
        await asyncio.wait({output, hangup}, return_when=asyncio.FIRST_COMPLETED)
        return hangup.done() and hangup.result()
    finally:
        for task in (output, entry, hangup):
            task.cancel()
        await asyncio.gather(output, entry, hangup, return_exceptions=True)


async def send_prefix(client: socket.socket, prefix: AsyncIterator[bytes]) -> None:
    """Send what precedes the live stream: the log so far, for ``logs=1``."""
    loop = asyncio.get_running_loop()
    await until_read(client)
    async for piece in prefix:
        await loop.sock_sendall(client, piece)


async def until_read(client: socket.socket) -> None:
    """Wait until the client has read what it was sent, or is slower than anybody should be."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + _HEAD_LIMIT_S
    while _has_unread(client) and loop.time() < deadline_s:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.001)


def _has_unread(client: socket.socket) -> bool:
    """Whether the peer has not read everything yet; TCP does not tell, and says no."""
    if client.family != socket.AF_UNIX:
        return False
    return any(fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))


async def _deliver(session: socket.socket, client: socket.socket) -> None:
    """Copy what the container writes."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        if first := await loop.sock_recv(session, _BUFFER_BYTES):
            await until_read(client)
            await loop.sock_sendall(client, first)
            await _copy(session, client)


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy to the source's end of file, or to where either breaks."""
    loop = asyncio.get_running_loop()
    view = memoryview(bytearray(_BUFFER_BYTES))
    unyielded = 0
    with contextlib.suppress(ConnectionError):
        while size := await loop.sock_recv_into(source, view):
            await loop.sock_sendall(sink, view[:size])
            unyielded += size
            if unyielded >= _YIELD_BYTES:  # sockets always ready would never let the loop turn
                unyielded = 0
                await asyncio.sleep(0)


async def _feed(
    client: socket.socket, session: socket.socket, unread: bytes, scanner: DetachScanner | None
) -> bool:
    """Carry what the client sends, then its end of file; whether it typed the detach keys."""
    loop = asyncio.get_running_loop()
    try:
        if scanner is None:
            if unread:
                await loop.sock_sendall(session, unread)
            await _copy(client, session)
        elif await _feed_scanned(client, session, unread, scanner):
            return True
        session.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the container closed its input or ended: its output decides when the pump ends
    return False


async def _feed_scanned(
    client: socket.socket, session: socket.socket, unread: bytes, scanner: DetachScanner
) -> bool:
    loop = asyncio.get_running_loop()
    data = unread or await loop.sock_recv(client, _BUFFER_BYTES)
    while data:
        passed, detached = scanner.feed(data)
        if passed:
            await loop.sock_sendall(session, passed)
        if detached:
            return True
        data = await loop.sock_recv(client, _BUFFER_BYTES)
    return False


async def _hangup_after(entry: asyncio.Future[bool], client: socket.socket) -> bool:
    """Wait until the client detached (True), or has nothing to send and reads nothing (False)."""
    if await asyncio.shield(entry):
        return True
    await _hangup(client)
    return False


async def _hangup(sock: socket.socket) -> None:
    """Wait until the peer has closed both directions.

    An end of file says only that it will send no more. epoll reports EPOLLHUP without being asked,
    and asyncio would spin on a socket at its end of file: so an epoll of its own that asks for
    nothing else, whose own descriptor becomes readable at the hangup.
    """
    loop = asyncio.get_running_loop()
    gone = loop.create_future()
    with select.epoll() as watcher:
        watcher.register(sock, 0)

        def notice() -> None:
            if not gone.done():
                gone.set_result(None)

        loop.add_reader(watcher.fileno(), notice)
        try:
            await gone
        finally:
            loop.remove_reader(watcher.fileno())
