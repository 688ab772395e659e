"""Accepts connections and ends them.

At most ``max_connections`` exist; one more pushes out the one that has waited longest between
requests, so thousands of half-open connections cost nobody an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from cais.http.connection import ENDLESS, Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from cais.http.connection import Head, Patience, RequestBody
    from cais.http.messages import Answer

log = logging.getLogger(__name__)

DEFAULT_MAX_CONNECTIONS = 4096
_RETRY_ACCEPT_S = 0.1


class Server:
    """Serves one application on any number of listening sockets.

    Args:
        application: answers every request.
        headers: sent with every answer.
        max_connections: as the module says.
        patience: of every connection with its client.

    """

    def __init__(
        self,
        application: Callable[[Head, RequestBody], Awaitable[Answer]],
        headers: Sequence[tuple[str, str]] = (),
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        patience: Patience = ENDLESS,
    ) -> None:
        self._application = application
        self._headers = headers
        self._max_connections = max_connections
        self._patience = patience
        self._listeners: dict[asyncio.Task[None], socket.socket] = {}
        self._connections: dict[asyncio.Task[None], Connection] = {}  # oldest first
        self._fronts: set[asyncio.Task[None]] = set()

    def listen(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        """Accept on a listening socket, which the server owns from now on; with TLS in front."""
        sock.settimeout(0)
        task = asyncio.get_running_loop().create_task(self._accept(sock, context))
        self._listeners[task] = sock

    def serve(self, sock: socket.socket) -> asyncio.Task[None]:
        """Serve one connected socket, which the server owns from now on; return what serves it."""
        if len(self._connections) >= self._max_connections:
            self._make_room()
        sock.settimeout(0)
        connection = Connection(sock, self._application, self._headers, self._patience)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._ended)
        return task

    async def close(self, grace_s: float = 5.0) -> None:
        """Stop accepting, let requests end for ``grace_s`` seconds, then end the rest.

        Streams and hijacked connections do not end by themselves: idle connections are closed at
        once and those are when the grace is over.
        """
        for task, sock in self._listeners.items():
            task.cancel()
            sock.close()
        self._listeners.clear()
        for task, connection in self._connections.items():
            if connection.is_waiting or connection.is_endless:
                task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace_s)
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._fronts:  # each ends by itself when its connection has
            await asyncio.wait(self._fronts, timeout=1)
        for task in list(self._fronts):
            task.cancel()

    def _serve_tls(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        from cais.http.tls import carry

        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        served = self.serve(theirs)
        loop = asyncio.get_running_loop()
        task = loop.create_task(carry(sock, ours, context))
        self._fronts.add(task)
        task.add_done_callback(self._front_ended)
        if (stall_s := self._patience.stall_s) is not None:
            # What the client does not take keeps the front waiting when nobody is behind it.
            served.add_done_callback(lambda _: loop.call_later(stall_s, task.cancel))

    async def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as exc:  # out of descriptors or memory: others will be given back
                log.warning("accept: %s", exc)
                self._make_room()
                await asyncio.sleep(_RETRY_ACCEPT_S)
                continue
            if context is None:
                self.serve(sock)
            else:
                self._serve_tls(sock, context)

    def _make_room(self) -> None:
        """End the connection that has waited longest for a request to come."""
        for task, connection in self._connections.items():
            if connection.is_waiting:
                del self._connections[task]
                task.cancel()
                return

    def _front_ended(self, task: asyncio.Task[None]) -> None:
        self._fronts.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("TLS: %s", error)  # a stranger's failed handshake is nobody's business

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        with contextlib.suppress(asyncio.CancelledError):
            if error := task.exception():
                log.error("connection: %s", type(error).__name__, exc_info=error)
