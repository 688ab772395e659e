"""Bytes from a generator that blocks to the event loop: the other direction of ``block_reader``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from cais.engine.tasks import Threads


async def blocks_in_pool(
    threads: Threads, blocks: Generator[bytes, None, None]
) -> AsyncGenerator[bytes, None]:
    """Yield what ``blocks`` yields, each block made in the pool; then close it.

    A step that has begun is waited for, also when the reader goes away: a generator can be closed
    only while it rests.
    """
    try:
        while True:
            step = asyncio.ensure_future(threads.run(next, blocks, b""))
            try:
                block = await asyncio.shield(step)
            except asyncio.CancelledError:
                await asyncio.wait([step])
                raise
            if not block:
                return
            yield block
    finally:
        await threads.run(blocks.close)
