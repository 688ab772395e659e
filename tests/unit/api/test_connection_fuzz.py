"""No bytes a client can send make the server raise, hang or answer anything but HTTP."""

import asyncio
import logging
import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cais.api.application import make_router
from cais.http.server import Server
from cais.testing.fake_engine import FakeEngine
from cais.testing.waiting import PATIENCE_S

LINE = st.sampled_from(
    [
        b"GET /_ping HTTP/1.1\r\n",
        b"POST /volumes/create HTTP/1.1\r\n",
        b"POST /containers/x/attach HTTP/1.1\r\n",
        b"POST /images/load HTTP/1.1\r\n",
        b"GET /v1.44/containers/%00/json?filters=%7b HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Upgrade: tcp\r\n",
        b"Connection: Upgrade\r\n",
        b"Content-Type: application/json\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"5\r\n{}   \r\n0\r\n\r\n",
        b"\r\n",
        b"\n",
        b"\x00",
    ]
)
CONVERSATION = st.lists(LINE | st.binary(max_size=20), max_size=14)


@settings(max_examples=150, deadline=None)
@given(CONVERSATION)
def test_any_conversation_ends(parts: list[bytes]) -> None:
    errors = _Errors(logging.ERROR)
    logging.getLogger("cais").addHandler(errors)
    try:
        asyncio.run(_converse(parts))
    finally:
        logging.getLogger("cais").removeHandler(errors)
    assert not errors.records


class _Errors(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


async def _converse(parts: list[bytes]) -> None:
    engine = FakeEngine()
    application: Any = make_router(engine)  # type: ignore[arg-type]
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    server = Server(application)
    ours, theirs = socket.socketpair()
    server.serve(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0)
    writer.write_eof()
    await asyncio.sleep(0)
    engine.close()  # attachments end
    async with asyncio.timeout(PATIENCE_S):
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 "), answer
    assert b"Traceback" not in answer
    writer.close()
    await server.close(grace_s=0)
    engine.close()
    assert not failures
