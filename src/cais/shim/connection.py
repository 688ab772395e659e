"""One connection of the engine: requests in, answers and events out.

A peer that does not read is dropped once ``MAX_QUEUE`` packets wait for it; exits are kept, so
nothing is lost by that. One that sends what is not a packet is dropped at once.
"""

from __future__ import annotations

import socket
from collections import deque

from cais.errors import CaisError, InvalidArgumentError
from cais.shim import protocol
from cais.shim.fields import Fields
from cais.shim.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from cais.shim.loop import Loop
    from cais.shim.protocol import Document

    class Owner(Protocol):
        """What a connection needs of the server."""

        def serve(self, request: Request) -> None:
            """Carry out one request, or raise what it is to be answered with."""

        def report(self, error: BaseException) -> None:
            """Log a fault of ours."""

        def forget(self, connection: Connection) -> None:
            """The connection is closed."""


MAX_QUEUE = 4096


class Connection:
    """One client: its requests in order, its queue of packets."""

    def __init__(self, loop: Loop, channel: socket.socket, server: Owner) -> None:
        """Own ``channel``, non-blocking."""
        self._loop = loop
        self._channel = channel
        self._server = server
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        self._is_closed = False
        self.greeted = False
        loop.watch(channel.fileno(), READ, self._ready)

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send or queue ``packet``; ``fds`` are owned from now on."""
        if self._is_closed or len(self._queue) >= MAX_QUEUE:
            protocol.close_all(fds)
            self.close()
            return
        self._queue.append((packet, fds))
        if len(self._queue) == 1:
            self._flush()

    def close(self) -> None:
        """Drop the client. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.unwatch(self._channel.fileno())
        self._channel.close()
        for _, fds in self._queue:
            protocol.close_all(fds)
        self._queue.clear()
        self._server.forget(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE and not self._is_closed:
            self._receive()

    def _receive(self) -> None:
        try:
            packet, fds = protocol.receive(self._channel)
        except BlockingIOError:
            return
        except (protocol.PeerGoneError, protocol.PacketError, OSError):
            self.close()
            return
        try:
            self._take(packet, fds)
        finally:
            protocol.close_all(fds)

    def _take(self, packet: bytes, fds: list[int]) -> None:
        try:
            document = protocol.decode(packet)
        except protocol.PacketError:
            self.close()
            return
        seq, verb = document.get("seq"), document.get("request")
        if type(seq) is not int or not isinstance(verb, str):
            self.close()
            return
        request = Request(self, seq, verb[:64], document, fds)
        try:
            self._server.serve(request)
        except Exception as exc:  # noqa: BLE001 - the requester hears of it; the shim goes on
            if not isinstance(exc, CaisError):
                self._server.report(exc)
            request.fail(exc)

    def _flush(self) -> None:
        while self._queue:
            packet, fds = self._queue[0]
            try:
                protocol.send(self._channel, packet, fds)
            except BlockingIOError:
                self._loop.rewatch(self._channel.fileno(), READ | WRITE)
                return
            except (protocol.PeerGoneError, OSError):
                self.close()
                return
            self._queue.popleft()
            protocol.close_all(fds)
        self._loop.rewatch(self._channel.fileno(), READ)


class Request:
    """One request and its answer, which is given once, by ``ok``, ``ok_with`` or ``fail``."""

    __slots__ = ("_fds", "_seq", "connection", "fields", "verb")

    def __init__(
        self, connection: Connection, seq: int, verb: str, document: Document, fds: list[int]
    ) -> None:
        self.connection = connection
        self.verb = verb
        self.fields = Fields(verb, document)
        self._seq = seq
        self._fds = fds

    def take_socket(self) -> socket.socket:
        """Return the one descriptor that came along, as a socket owned by the caller."""
        if len(self._fds) != 1:
            raise InvalidArgumentError(f"{self.verb}: {len(self._fds)} descriptors came, not one")
        try:
            channel = socket.socket(fileno=self._fds[0])
        except OSError as exc:
            raise InvalidArgumentError(f"{self.verb}: the descriptor is no socket") from exc
        self._fds.clear()
        return channel

    def part(self, **fields: object) -> None:
        """Send one part of the answer; more will come."""
        self._send({"ok": True, "more": True, **fields})

    def ok(self, **fields: object) -> None:
        """Answer."""
        self._send({"ok": True, **fields})

    def ok_with(self, fds: Sequence[int]) -> None:
        """Answer with descriptors, owned from now on."""
        self._send({"ok": True}, fds)

    def fail(self, error: BaseException) -> None:
        """Answer with a failure."""
        self._send({"error": protocol.error_document(error)})

    def _send(self, document: Document, fds: Sequence[int] = ()) -> None:
        self.connection.send(protocol.encode({"seq": self._seq, **document}), fds)
