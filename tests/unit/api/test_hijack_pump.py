"""Bytes both ways between a client and a container."""

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from cais.api.hijack import pump
from cais.spec.detach_keys import DetachScanner
from cais.testing.waiting import PATIENCE_S

Ends = tuple[socket.socket, socket.socket, socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Return (client, the daemon's end, the daemon's other end, container)."""
    client, ours = socket.socketpair()
    session, container = socket.socketpair()
    for sock in (client, ours, session, container):
        sock.setblocking(False)
    yield client, ours, session, container
    for sock in (client, ours, session, container):
        sock.close()


async def _read(sock: socket.socket) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.get_running_loop().sock_recv(sock, 65536)


async def test_half_close_then_output_then_end(ends: Ends) -> None:
    client, ours, session, container = ends
    task = asyncio.create_task(pump(ours, session, unread=b"first "))
    client.send(b"second")
    client.shutdown(socket.SHUT_WR)
    received = b""
    while data := await _read(container):
        received += data
    assert received == b"first second"
    container.send(b"answer")
    container.shutdown(socket.SHUT_WR)
    assert await asyncio.wait_for(task, PATIENCE_S) is False
    assert await _read(client) == b"answer"


async def test_container_that_ended_ends_the_pump_with_a_silent_client(ends: Ends) -> None:
    client, ours, session, container = ends
    container.send(b"bye")
    container.close()
    assert await asyncio.wait_for(pump(ours, session), PATIENCE_S) is False
    assert await _read(client) == b"bye"


async def test_nothing_follows_the_head_before_the_client_has_read_it(ends: Ends) -> None:
    """docker-py loses what it reads together with the head."""
    client, ours, session, container = ends
    ours.send(b"the head")
    container.send(b"output")
    task = asyncio.create_task(pump(ours, session))
    await asyncio.sleep(0.05)
    assert await _read(client) == b"the head"
    assert await _read(client) == b"output"
    container.close()
    assert await asyncio.wait_for(task, PATIENCE_S) is False


async def test_client_that_closed_is_noticed_in_silence(ends: Ends) -> None:
    client, ours, session, container = ends
    task = asyncio.create_task(pump(ours, session))
    await asyncio.sleep(0)
    client.close()
    assert await asyncio.wait_for(task, PATIENCE_S) is False
    assert await _read(container) == b""


async def test_half_closed_client_that_closes_later_is_noticed(ends: Ends) -> None:
    client, ours, session, container = ends
    task = asyncio.create_task(pump(ours, session))
    client.shutdown(socket.SHUT_WR)
    assert await _read(container) == b""
    assert not task.done()
    client.close()
    assert await asyncio.wait_for(task, PATIENCE_S) is False


async def test_container_that_closed_its_input_still_speaks(ends: Ends) -> None:
    client, ours, session, container = ends
    container.shutdown(socket.SHUT_RD)
    task = asyncio.create_task(pump(ours, session))
    client.send(b"nobody reads this")
    await asyncio.sleep(0.01)
    container.send(b"still here")
    assert await _read(client) == b"still here"
    container.close()
    assert await asyncio.wait_for(task, PATIENCE_S) is False


async def test_detach_keys_end_the_pump_and_are_not_passed_on(ends: Ends) -> None:
    client, ours, session, container = ends
    task = asyncio.create_task(pump(ours, session, scanner=DetachScanner(b"\x10\x11")))
    client.send(b"ls\n\x10x")
    client.send(b"\x10")
    client.send(b"\x11after")
    assert await asyncio.wait_for(task, PATIENCE_S) is True
    assert await _read(container) == b"ls\n\x10x"


async def test_slow_reader_holds_the_container_back(ends: Ends) -> None:
    client, ours, session, container = ends
    task = asyncio.create_task(pump(ours, session))
    sent = 0
    for _ in range(1000):
        await asyncio.sleep(0)
        try:
            sent += container.send(b"x" * 65536)
        except BlockingIOError:
            continue
    assert sent < 4 * 1024 * 1024  # socket buffers and one of ours, not memory without end
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.recv(10) == b"x" * 10


async def test_integrity_both_ways(ends: Ends) -> None:
    """A filter's bytes come out as they went in."""
    client, ours, session, container = ends
    total = 200 * 1024 * 1024
    block = os.urandom(1024 * 1024)
    for sock in (client, container):
        sock.setblocking(True)
    received = hashlib.sha256()

    def feed() -> None:
        for _ in range(total // len(block)):
            client.sendall(block)
        client.shutdown(socket.SHUT_WR)

    def echo() -> None:
        while data := container.recv(1 << 18):
            container.sendall(data)
        container.shutdown(socket.SHUT_WR)

    def collect() -> None:
        while data := client.recv(1 << 18):
            received.update(data)

    threads = [threading.Thread(target=work) for work in (feed, echo, collect)]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(60):
        await pump(ours, session)
    ours.shutdown(socket.SHUT_WR)
    for thread in threads:
        thread.join()
    expected = hashlib.sha256()
    for _ in range(total // len(block)):
        expected.update(block)
    assert received.digest() == expected.digest()
