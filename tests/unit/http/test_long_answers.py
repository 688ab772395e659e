"""Answers that are parts of files or streams of a known size, and clients that stall."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cais.http import connection
from cais.http.connection import ENDLESS, Head, Patience, RequestBody
from cais.http.errors import CutShortError
from cais.http.messages import Answer, FileRange, Response, Stream
from cais.http.server import Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def converse(
    answer: Answer, request: bytes = GET, patience: Patience = ENDLESS, late: bytes = b""
) -> bytes:
    """Return all that a client receives which sends ``request``, and ``late`` when it is read."""
    begun = asyncio.Event()

    async def application(head: Head, body: RequestBody) -> Answer:
        del head
        begun.set()
        if isinstance(answer, Response):
            async for _ in body:
                pass
        return answer

    server = Server(application, patience=patience)
    ours, theirs = socket.socketpair()
    server.serve(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(request)
    try:
        async with asyncio.timeout(60):
            if late:
                await begun.wait()
                await asyncio.sleep(0)  # it waits for the body by now
                writer.write(late)
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await server.close(grace_s=0)


async def test_part_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192  # two megabytes: several pieces
    path = tmp_path / "file"
    path.write_bytes(content)
    file = path.open("rb")
    answer = FileRange(file, 100, len(content) - 200, 206, "application/x", {"X-Name": "value"})
    head, _, body = (await converse(answer)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert b"\r\nX-Name: value\r\n" in head
    assert b"\r\nContent-Length: %d\r\n" % (len(content) - 200) in head
    assert body == content[100:-100]
    assert file.closed


async def test_head_of_a_file_has_its_size_and_no_body(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    answer = FileRange((tmp_path / "file").open("rb"), 0, 10)
    received = await converse(answer, GET.replace(b"GET", b"HEAD"))
    assert b"\r\nContent-Length: 10\r\n" in received
    assert received.endswith(b"\r\n\r\n")


async def test_a_file_that_became_shorter_ends_the_connection(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    received = await converse(FileRange((tmp_path / "file").open("rb"), 0, 20))
    assert received.endswith(b"\r\n\r\n" + b"x" * 10)


async def test_a_stream_of_known_size_is_not_chunked() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    received = await converse(Stream(chunks(), "text/x", headers={"X-Name": "value"}, size=6))
    assert b"\r\nContent-Length: 6\r\n" in received
    assert b"\r\nX-Name: value\r\n" in received
    assert received.endswith(b"\r\n\r\nonetwo")


async def test_a_stream_that_breaks_is_cut_short() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"one"
        raise CutShortError("the source broke")

    async def ends() -> AsyncIterator[bytes]:
        yield b"one"

    for chunks in (breaks(), ends()):
        received = await converse(Stream(chunks, "text/x", size=6))
        assert received.endswith(b"\r\n\r\none")


async def test_who_sends_nothing_more_is_given_up() -> None:
    patience = Patience(idle_s=0.05, stall_s=0.05)
    begun = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"
    assert await converse(Response(), begun, patience) == b""
    answered = await converse(Response(), begun + b"cde", patience)
    assert answered.startswith(b"HTTP/1.1 200 ")  # and then the idle connection was closed


async def test_who_crawls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends often enough, but never gets anywhere."""
    monkeypatch.setattr(connection, "CRAWL_BYTES", 1 << 60)
    patience = Patience(crawl_s=1e-9)
    begun = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    assert await converse(Response(), begun, patience, late=b"abcd") == b""
    monkeypatch.setattr(connection, "CRAWL_BYTES", 0)
    answered = await converse(Response(), begun, Patience(crawl_s=1e-9, idle_s=0.05), late=b"abcde")
    assert answered.startswith(b"HTTP/1.1 200 ")


async def test_who_takes_nothing_is_given_up(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 26)
    ended = asyncio.Event()

    class Watched(Server):
        def _ended(self, task: asyncio.Task[None]) -> None:
            super()._ended(task)
            ended.set()

    async def application(head: Head, body: RequestBody) -> Answer:
        del head, body
        return FileRange((tmp_path / "file").open("rb"), 0, 1 << 26)

    server = Watched(application, patience=Patience(stall_s=0.05))
    ours, theirs = socket.socketpair()
    with ours:
        server.serve(theirs)
        ours.sendall(GET)
        async with asyncio.timeout(60):
            await ended.wait()
    await server.close(grace_s=0)


async def test_an_answer_reaches_who_is_still_sending() -> None:
    async def application(head: Head, body: RequestBody) -> Answer:
        del head, body
        return Response(401, b"no")

    server = Server(application)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server.listen(listener)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n")
    async with asyncio.timeout(60):
        for _ in range(80):
            writer.write(b"x" * 100_000)
            await writer.drain()
        assert (await reader.read()).endswith(b"\r\n\r\nno")
    writer.close()
    await server.close(grace_s=0)
