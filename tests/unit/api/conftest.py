"""The API over a real socket, in the test's own loop, driving a fake engine."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from cais.api.application import common_headers, make_router
from cais.http.server import Server
from cais.testing.fake_engine import FakeEngine
from cais.testing.waiting import PATIENCE_S


@dataclass
class Reply:
    """A parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Client:
    """Speaks bytes, so that a test can say anything at all."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = field(default=b"")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {target} HTTP/1.1", "Host: docker"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def reply_head(self) -> Reply:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (ln.partition(": ") for ln in lines)}
        return Reply(int(first.split()[1]), headers)

    async def reply(self, *, bodiless: bool = False) -> Reply:
        reply = await self.reply_head()
        async with asyncio.timeout(PATIENCE_S):
            if reply.headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    reply.body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readexactly(2)
            elif not bodiless:
                size = int(reply.headers.get("content-length", "0"))
                reply.body = await self.reader.readexactly(size)
        return reply

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Reply:
        self.request(method, target, body, **headers)
        return await self.reply(bodiless=method == "HEAD")

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.close()


@pytest.fixture
async def server(engine: FakeEngine) -> AsyncIterator[Server]:
    application: Any = make_router(engine)  # type: ignore[arg-type]
    server = Server(application, common_headers(), max_connections=64)
    yield server
    await server.close(grace_s=0)


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[[], Any]]:
    writers = []

    async def open_client() -> Client:
        ours, theirs = socket.socketpair()
        server.serve(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        writers.append(writer)
        return Client(reader, writer)

    yield open_client
    for writer in writers:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def client(connect: Callable[[], Any]) -> Client:
    client: Client = await connect()
    return client
