"""Requests by number over one connection to a shim; what is not an answer is an event.

Spec: docs/architecture.md 3.3.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

from cais import errors
from cais.shim import protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping, Sequence

_PACKETS_PER_TURN = 64


class Exchange:
    """Owner of the connection. Used in the event loop it was made in.

    Args:
        channel: non-blocking; closed by ``close`` or when the shim goes.
        on_event: called with each event, in their order; must not block.

    """

    def __init__(self, channel: socket.socket, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._channel = channel
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Waiter] = {}
        self._next_seq = 1
        self._outgoing: list[tuple[bytes, list[socket.socket]]] = []
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(channel.fileno(), self._readable)

    async def wait_lost(self) -> None:
        """Return when the connection is gone, by ``close`` or because the shim ended."""
        await asyncio.shield(self._lost)

    def close(self) -> None:
        """Close the connection; requests under way fail. Idempotent."""
        self._lose("the connection to the shim is closed")

    async def ask(
        self, verb: str, fields: Mapping[str, Any], sockets: Sequence[socket.socket] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a request; return its answer and the descriptors that came with it (owned).

        Raises:
            UnavailableError: the shim is gone.
            CaisError: the shim refuses; of the class it names, with its text.

        """
        if self._lost.done():
            raise errors.UnavailableError("the connection to the shim is closed")
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        packet = protocol.encode({"seq": seq, "request": verb, **fields})
        # Duplicates: the caller may close its own before a full queue lets them go.
        self._outgoing.append((packet, [fd.dup() for fd in sockets]))
        waiter = self._waiting[seq] = _Waiter(self._loop.create_future())
        self._flush()
        try:
            await waiter.answered
        finally:
            self._waiting.pop(seq, None)
            if waiter.answered.cancelled():
                protocol.close_all(waiter.fds)
        return waiter.document, waiter.fds

    def _flush(self) -> None:
        while self._outgoing and not self._lost.done():
            packet, fds = self._outgoing[0]
            try:
                protocol.send(self._channel, packet, [fd.fileno() for fd in fds])
            except BlockingIOError:
                self._loop.add_writer(self._channel.fileno(), self._flush)
                return
            except (errors.UnavailableError, OSError) as exc:
                self._lose(str(exc))
                return
            del self._outgoing[0]
            _close_sockets(fds)
        if not self._lost.done():
            self._loop.remove_writer(self._channel.fileno())

    def _readable(self) -> None:
        for _ in range(_PACKETS_PER_TURN):  # then the loop's other work has its turn
            try:
                packet, fds = protocol.receive(self._channel)
                document = protocol.decode(packet)
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno not in (errno.EMFILE, errno.ENFILE):
                    self._lose(str(exc))
                return
            except errors.CaisError as exc:
                self._lose(str(exc))
                return
            self._take(document, fds)
            if self._lost.done():
                return

    def _take(self, document: dict[str, Any], fds: list[int]) -> None:
        if "event" in document:
            protocol.close_all(fds)
            self._on_event(document)
            return
        waiter = self._waiting.get(document.get("seq", 0))
        if waiter is None or waiter.answered.done():
            protocol.close_all(fds)  # nobody waits for this answer any more
            return
        waiter.take(document, fds)

    def _lose(self, why: str) -> None:
        if self._lost.done():
            return
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()
        for _, fds in self._outgoing:
            _close_sockets(fds)
        self._outgoing.clear()
        self._lost.set_result(None)
        for waiter in self._waiting.values():
            if not waiter.answered.done():
                waiter.answered.set_exception(errors.UnavailableError(why))


class _Waiter:
    """A request whose answer, perhaps in several packets, has not all arrived."""

    def __init__(self, answered: asyncio.Future[None]) -> None:
        self.answered = answered
        self.document: dict[str, Any] = {}
        self.fds: list[int] = []

    def take(self, part: dict[str, Any], fds: list[int]) -> None:
        """Add one packet; lists of several parts are joined. Sets ``answered`` with the last."""
        self.fds += fds
        for name, value in part.items():
            if isinstance(value, list) and name in self.document:
                self.document[name] += value
            else:
                self.document[name] = value
        if "error" in part:
            protocol.close_all(self.fds)
            self.answered.set_exception(protocol.error_from(part["error"]))
        elif not part.get("more"):
            self.answered.set_result(None)


def _close_sockets(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
