"""Bytes from the event loop to a thread that reads them as a file."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, TypeVar

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cais.engine.tasks import Threads

T = TypeVar("T")
_QUEUED_BLOCKS = 8


async def read_in_pool(
    threads: Threads, source: AsyncIterator[bytes], work: Callable[[BlockReader], T]
) -> T:
    """Run ``work`` in the pool on the bytes of ``source``; back when it has ended."""
    reader = BlockReader()
    working = asyncio.ensure_future(threads.run(work, reader))
    working.add_done_callback(lambda _: reader.close())
    try:
        async for block in source:
            if block:
                await reader.put(block)
            if working.done():
                break
        await reader.put(b"")
        return await asyncio.shield(working)
    except BaseException:
        reader.abort()
        await asyncio.gather(working, return_exceptions=True)
        raise


class BlockReader:
    """Blocks put in by the loop and read by one thread; bounded. Made in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(_QUEUED_BLOCKS)
        self._blocks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._is_closed = False
        self._is_aborted = False
        self._rest = b""
        self._is_at_end = False

    async def put(self, block: bytes) -> None:
        """Queue a block, b"" for the end; waits while the reader is too far behind."""
        if not self._is_closed:
            await self._room.acquire()
            self._blocks.put(block)

    def close(self) -> None:
        """Say that nobody reads any more: ``put`` does not wait."""
        self._is_closed = True
        self._room.release()

    def abort(self) -> None:
        """Make the reader fail: the client has gone away."""
        self._is_aborted = True
        self._blocks.put(b"")

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; empty at the end. Blocks: until there is something.

        Raises:
            InvalidArgumentError: ``abort`` was called.

        """
        if not self._rest and not self._is_at_end:
            self._rest = self._blocks.get()
            if self._is_aborted:
                raise InvalidArgumentError("the archive was cut off: the client went away")
            self._is_at_end = not self._rest
            self._loop.call_soon_threadsafe(self._room.release)
        result, self._rest = self._rest[:size], self._rest[size:]
        return result
