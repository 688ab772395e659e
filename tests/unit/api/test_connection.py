"""HTTP framing: keep-alive, bodies, streams, hostile bytes, clients that go away."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cais.http import connection
from cais.http.messages import Hijack, Response, Stream
from cais.http.server import Server
from cais.testing.fake_engine import FakeEngine
from cais.testing.waiting import PATIENCE_S


async def test_connection_is_kept_for_the_next_request(client: Any) -> None:
    for _ in range(3):
        assert (await client.ask("GET", "/_ping")).body == b"OK"


async def test_pipelined_requests_are_answered_in_order(client: Any) -> None:
    client.request("GET", "/_ping")
    client.request("GET", "/nowhere")
    assert (await client.reply()).status == 200
    assert (await client.reply()).status == 404


async def test_head_has_no_body_and_the_connection_goes_on(client: Any) -> None:
    assert (await client.ask("HEAD", "/_ping")).headers["content-length"] == "2"
    assert (await client.ask("GET", "/_ping")).body == b"OK"


async def test_connection_close_is_obeyed(client: Any) -> None:
    await client.ask("GET", "/_ping", Connection="close")
    assert await client.rest() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,  # TLS ClientHello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET /\r\n\r\n",  # HTTP/0.9
        b"GET /_ping HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET /_ping\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_garbage_is_refused_and_the_connection_closed(client: Any, garbage: bytes) -> None:
    client.send(garbage)
    client.writer.write_eof()
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"Traceback" not in answer


async def test_head_that_never_ends_is_refused_at_its_limit(client: Any) -> None:
    client.send(b"GET /_ping HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (connection.MAX_HEAD_BYTES + 1))
    assert (await client.reply()).status == 431


async def test_head_deadline(monkeypatch: pytest.MonkeyPatch, connect: Any) -> None:
    monkeypatch.setattr(connection, "HEAD_DEADLINE_S", 0.01)
    client = await connect()
    client.send(b"GET /_pi")
    with contextlib.suppress(ConnectionResetError):  # past the deadline before it was read
        assert await client.rest() == b""


async def test_expect_100_continue(client: Any, engine: FakeEngine) -> None:
    head = b"POST /images/load HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    client.send(head + b"Expect: 100-continue\r\n\r\n")
    assert (await client.reply_head()).status == 100
    client.send(b"tar!")
    assert (await client.reply()).status == 200
    assert engine.loaded == b"tar!"


async def test_unread_body_is_skipped(client: Any) -> None:
    client.request("POST", "/nowhere", b"x" * 100_000)
    client.request("GET", "/_ping")
    assert (await client.reply()).status == 404
    assert (await client.reply()).body == b"OK"


async def test_large_unread_body_ends_the_connection(client: Any) -> None:
    client.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
    client.send(b"x" * 1_000_000)
    assert (await client.reply()).status == 404
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(1)


async def test_oldest_waiting_connection_makes_room(connect: Any) -> None:
    first = await connect()
    others = [await connect() for _ in range(64)]
    assert await first.rest() == b""
    for other in others:
        assert (await other.ask("GET", "/_ping")).status == 200


async def test_client_gone_closes_a_stream(client: Any, engine: FakeEngine) -> None:
    client.request("GET", "/events")
    assert (await client.reply_head()).status == 200
    client.writer.close()
    async with asyncio.timeout(PATIENCE_S):
        await engine.subscriptions[0].closed.wait()


async def test_wait_sends_its_head_before_the_result(client: Any, engine: FakeEngine) -> None:
    client.request("POST", "/v1.44/containers/x/wait?condition=next-exit")
    assert (await client.reply_head()).headers["transfer-encoding"] == "chunked"
    engine.waits[0].get_loop().call_soon(engine.waits[0].set_result, _Result(7))
    assert (
        await client.reader.readuntil(b"\r\n0\r\n\r\n") == b'11\r\n{"StatusCode":7}\n\r\n0\r\n\r\n'
    )


async def test_handler_runs_to_its_end_without_its_client(client: Any, engine: FakeEngine) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    go_on = asyncio.Event()

    async def restart() -> None:
        begun.set()
        await go_on.wait()
        ended.set()

    engine.answers["lifecycle.restart"] = restart
    client.request("POST", "/containers/x/restart")
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
        client.writer.close()
        await client.writer.wait_closed()
        go_on.set()
        await ended.wait()


async def test_failure_in_mid_stream_cuts_the_connection() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("broken")

    reply = await _serve_once(Stream(chunks()))
    assert reply.endswith(b"3\r\none\r\n")  # and no last chunk: the client sees it is not whole


async def test_hijack_gets_what_was_sent_behind_the_request() -> None:
    async def serve(sock: socket.socket, unread: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(sock, unread.upper())

    hijack = Hijack(serve, lambda: None, "application/x")
    reply = await _serve_once(hijack, b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"behind")
    head, _, rest = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/x")
    assert rest == b"BEHIND"
    reply = await _serve_once(hijack, b"", b"behind")
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"\r\n\r\nBEHIND")


async def _serve_once(answer: Any, headers: bytes = b"", behind: bytes = b"") -> bytes:
    async def application(head: connection.Head, _: connection.RequestBody) -> Any:
        return answer if head.target == "/" else Response(404)

    server = Server(application)
    ours, theirs = socket.socketpair()
    server.serve(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n" + behind)
    async with asyncio.timeout(PATIENCE_S):
        reply = await reader.read()
    writer.close()
    await server.close()
    return reply


class _Result:
    error = None

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


async def test_handler_that_reads_a_body_gets_its_end_when_there_is_none(client: Any) -> None:
    assert (await client.ask("POST", "/containers/x/start")).status == 204
    assert (await client.ask("POST", "/containers/x/start", Content_Length="0")).status == 204
    assert (await client.ask("POST", "/containers/x/start", b"{}")).status == 204
