"""One client's HTTP/1.1 conversation over a socket.

h11 parses and frames, without input or output of its own; this module moves the bytes. The socket
is used directly rather than through an asyncio transport, so that a hijack has nothing to detach:
what was read beyond the request is known exactly and the descriptor is ours.

Spec: RFC 9112; docker-engine-api v1.51, "ContainerAttach", "Hijacking".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import TYPE_CHECKING, NamedTuple, cast

import h11

from cais.http.errors import ClientGoneError, CutShortError
from cais.http.head_fields import REASONS, http_date
from cais.http.messages import Answer, FileRange, Hijack, Response, Stream, json_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
HEAD_DEADLINE_S = 60.0
"""From a connection's first moment, or a head's first byte, to the head's last byte."""

_READ_BYTES = 64 * 1024
_BODY_READ_BYTES = 256 * 1024
_DISCARD_BYTES = 256 * 1024
_DISCARD_S = 5.0
_YIELD_BYTES = 1024 * 1024
CRAWL_BYTES = 1024
_FILE_BYTES = 512 * 1024
"""Of a file at a time, each with its own deadline."""


_LISTS = frozenset({"accept", "if-none-match"})
"""Fields that may be repeated, and mean then what one with commas does (RFC 9110 section 5.3)."""


class Head(NamedTuple):
    """A request's head as it came."""

    method: str
    target: str
    headers: Mapping[str, str]


class Patience(NamedTuple):
    """How long a connection waits for its client, in seconds; None: as long as it takes."""

    idle_s: float | None = None
    """For the next request."""

    stall_s: float | None = None
    """For the next bytes of a body, and for the client to take the next ones of an answer."""

    crawl_s: float | None = None
    """For bytes of one body altogether, while fewer than ``CRAWL_BYTES`` come in each second."""


ENDLESS = Patience()


class Connection:
    """Serves one accepted socket, which it owns.

    Args:
        sock: non-blocking.
        application: answers one request; must not raise.
        headers: sent with every answer.
        patience: with slow clients.

    """

    def __init__(
        self,
        sock: socket.socket,
        application: Callable[[Head, RequestBody], Awaitable[Answer]],
        headers: Sequence[tuple[str, str]] = (),
        patience: Patience = ENDLESS,
    ) -> None:
        self._sock = sock
        self._application = application
        self._headers = list(headers)
        self._patience = patience
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = time.monotonic() + HEAD_DEADLINE_S
        self._body_bytes, self._waited_s = 0, 0.0  # of the present request
        self.is_waiting = True
        """Between requests: closing the connection now would lose nothing."""

        self.is_endless = False
        """Streaming or hijacked: it will not end soon by itself."""

    async def run(self) -> None:
        """Answer requests until either side ends the conversation; the socket is then closed."""
        try:
            while await self._exchange():
                self._http.start_next_cycle()
                self._deadline = None
        except (ClientGoneError, OSError, TimeoutError) as exc:
            log.debug("client went away: %r", exc)
        except CutShortError as exc:
            log.warning("an answer was cut short: %s", exc)
        finally:
            self._sock.close()

    async def _exchange(self) -> bool:
        """Answer one request; whether another may follow."""
        self.is_waiting = True
        try:
            head = await self._read_head()
        except h11.RemoteProtocolError as exc:
            await self._refuse(exc)
            return False
        if head is None:
            return False
        self.is_waiting = False
        self._body_bytes, self._waited_s = 0, 0.0
        body = RequestBody(self, is_expected=_announces_body(head.headers))
        if not body.is_expected:
            self._http.next_event()  # the end of the message, which is all there is
        answer = await self._application(head, body)
        self.is_endless = isinstance(answer, Stream | Hijack)
        if isinstance(answer, Hijack):
            await self._hijack(answer, body, upgrade="upgrade" in head.headers)
            return False
        if isinstance(answer, Stream):
            await self._send_stream(answer, head)
        elif isinstance(answer, FileRange):
            await self._send_file(answer, head)
        else:
            await self._send_response(answer, head)
        self.is_endless = False
        may_go_on = await self._discard_rest()
        if self._http.their_state is h11.SEND_BODY:
            await self._linger()
        return may_go_on

    # Reading

    async def _read_head(self) -> Head | None:
        """Return the next request's head; None if the client ended the conversation first."""
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                return _head(event)
            if event is not h11.NEED_DATA:
                return None
            if self._deadline is None:  # an idle connection may stay; a begun head may not
                async with asyncio.timeout(self._patience.idle_s):
                    await self._fill(_READ_BYTES)
                self._deadline = time.monotonic() + HEAD_DEADLINE_S
            else:
                async with asyncio.timeout(self._deadline - time.monotonic()):
                    await self._fill(_READ_BYTES)

    async def _fill(self, size: int) -> int:
        data = await self._loop.sock_recv(self._sock, size)
        self._http.receive_data(data)
        return len(data)

    async def next_piece(self) -> bytes | None:
        """Return the next bytes of the request's body; None at its end.

        Raises:
            ClientGoneError: the client closed, or broke the framing, before the end.

        """
        try:
            while True:
                await self._invite_body()
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    await self._fill_body()
                elif isinstance(event, h11.Data):
                    return bytes(event.data)
                else:
                    return None
        except (h11.RemoteProtocolError, OSError) as exc:
            raise ClientGoneError(str(exc)) from exc

    async def _fill_body(self) -> None:
        began = time.monotonic()
        async with asyncio.timeout(self._patience.stall_s):
            self._body_bytes += await self._fill(_BODY_READ_BYTES)
        self._waited_s += time.monotonic() - began
        is_crawling = self._body_bytes < CRAWL_BYTES * self._waited_s
        if is_crawling and self._waited_s > (self._patience.crawl_s or self._waited_s):
            raise ClientGoneError("the body comes too slowly")

    async def _invite_body(self) -> None:
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))

    async def _discard_rest(self) -> bool:
        """Read past what the application left of the body; whether the next request may come."""
        left = _DISCARD_BYTES
        if self._http.our_state is not h11.DONE:
            return False
        async with asyncio.timeout(_DISCARD_S):
            while left > 0 and self._http.their_state is h11.SEND_BODY:
                piece = await self.next_piece()
                left -= len(piece or b"")
        return self._http.their_state is h11.DONE

    async def _linger(self) -> None:
        """Let a client that is still sending read the answer: a close now would destroy it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_DISCARD_S):
                while await self._loop.sock_recv(self._sock, _BODY_READ_BYTES):
                    pass

    # Writing

    async def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(self._patience.stall_s):
            await self._loop.sock_sendall(self._sock, data)

    async def _send_head(self, status: int, fields: Sequence[tuple[str, str]]) -> bytes:
        head = h11.Response(
            status_code=status,
            headers=[*self._headers, ("Date", http_date()), *fields],
            reason=REASONS.get(status, ""),
        )
        return self._http.send(head) or b""

    async def _send_response(self, response: Response, head: Head) -> None:
        fields = list(response.headers.items())
        if response.content_type:
            fields.append(("Content-Type", response.content_type))
        if not response.is_bodiless:  # also 0: without it h11 would say chunked
            fields.append(("Content-Length", str(len(response.body))))
        data = await self._send_head(response.status, fields)
        if response.body and not response.is_bodiless and head.method != "HEAD":
            data += self._http.send(h11.Data(data=response.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    async def _send_file(self, answer: FileRange, head: Head) -> None:
        with answer.file:
            fields = [*answer.headers.items(), ("Content-Length", str(answer.size))]
            if answer.content_type:
                fields.append(("Content-Type", answer.content_type))
            await self._write(await self._send_head(answer.status, fields))
            if head.method != "HEAD" and answer.size:
                unsent = cast("bytes", _Unsent(answer.size))  # h11 wants its length only
                self._http.send_with_data_passthrough(h11.Data(data=unsent))
                await self._copy_file(answer)
            self._http.send(h11.EndOfMessage())

    async def _copy_file(self, answer: FileRange) -> None:
        position, end = answer.offset, answer.offset + answer.size
        while position < end:
            count = min(_FILE_BYTES, end - position)
            async with asyncio.timeout(self._patience.stall_s):
                sent = await self._loop.sock_sendfile(self._sock, answer.file, position, count)
            if not sent:
                raise CutShortError("the file ends before its last byte")
            position += sent
            await asyncio.sleep(0)  # a ready socket never lets the loop turn

    async def _send_stream(self, stream: Stream, head: Head) -> None:
        """Send a stream for as long as both it and the client last."""
        task = asyncio.ensure_future(self._copy_stream(stream, head))
        watched = self._http.their_state is not h11.SEND_BODY
        if watched:
            self._loop.add_reader(self._sock, self._cancel_if_gone, task)
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled():  # it is the daemon that ends, not the client
                task.cancel()
                await asyncio.wait([task])
                raise
            raise ClientGoneError("left during an answer") from None
        finally:
            if watched:
                self._loop.remove_reader(self._sock)

    async def _copy_stream(self, stream: Stream, head: Head) -> None:
        unyielded = 0
        try:
            await self._invite_body()  # after the head it would be too late
            fields = [*stream.headers.items(), ("Content-Type", stream.content_type)]
            if stream.size is not None:
                fields.append(("Content-Length", str(stream.size)))
            await self._write(await self._send_head(stream.status, fields))
            if head.method != "HEAD":
                async for chunk in stream.chunks:
                    await self._send(h11.Data(data=chunk))
                    unyielded += len(chunk)
                    if unyielded >= _YIELD_BYTES:  # a ready socket never lets the loop turn
                        unyielded = 0
                        await asyncio.sleep(0)
            await self._send_end()
        finally:
            stream.release()
            if aclose := getattr(stream.chunks, "aclose", None):
                await aclose()

    async def _send_end(self) -> None:
        try:
            await self._send(h11.EndOfMessage())
        except h11.LocalProtocolError as exc:
            raise CutShortError(str(exc)) from exc

    def _cancel_if_gone(self, task: asyncio.Future[None]) -> None:
        try:
            gone = not self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            gone = True
        self._loop.remove_reader(self._sock)  # a request pipelined behind would wake us for ever
        if gone:
            task.cancel()

    async def _hijack(self, hijack: Hijack, body: RequestBody, *, upgrade: bool) -> None:
        try:
            async for _ in body:
                pass
            first = "101 UPGRADED" if upgrade else "200 OK"
            fields = [("Content-Type", hijack.content_type), *self._headers]
            if upgrade:
                fields += [("Connection", "Upgrade"), ("Upgrade", "tcp")]
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
            head = f"HTTP/1.1 {first}\r\n{lines}\r\n".encode("latin-1")
            await self._loop.sock_sendall(self._sock, head)
        except BaseException:
            hijack.abandon()
            raise
        await hijack.serve(self._sock, self._http.trailing_data[0])

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is not a request of HTTP/1.1."""
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            status = error.error_status_hint or 400
            answer = json_response({"message": f"bad request: {error}"}, status)
            answer.headers = {"Connection": "close"}
            await self._send_response(answer, Head("", "", {}))


class _Unsent:
    """Stands, to h11, for bytes that it never sees."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class RequestBody:
    """The body of the request a connection is at."""

    __slots__ = ("_connection", "_done", "is_expected")

    def __init__(self, connection: Connection, *, is_expected: bool) -> None:
        self._connection = connection
        self._done = not is_expected
        self.is_expected = is_expected

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give what was not read yet, in pieces."""
        while not self._done:
            piece = await self._connection.next_piece()
            if piece is None:
                self._done = True
            elif piece:
                yield piece


def _head(event: h11.Request) -> Head:
    headers: dict[str, str] = {}
    framing: set[bytes] = set()
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in _LISTS and name in headers:
            headers[name] += f", {value}"
        headers.setdefault(name, value)
        framing.add(raw_name)
    if {b"content-length", b"transfer-encoding"} <= framing:
        raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
    return Head(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)


def _announces_body(headers: Mapping[str, str]) -> bool:
    """Whether anything follows the head. The length may be 00, which h11 takes for 0 too."""
    return "transfer-encoding" in headers or headers.get("content-length", "").strip("0 ") != ""
