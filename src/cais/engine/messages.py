"""Progress messages: said by a thread, read by the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class Messages:
    """Those of one piece of work. Made in the loop that reads them with ``async for``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def __enter__(self) -> None:
        """Begin the work; from any thread."""

    def __exit__(self, *_: object) -> None:
        """End the messages with it, however it ended."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)

    def report(self, message: Mapping[str, Any]) -> None:
        """Say something; from any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, dict(message))

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while (message := await self._queue.get()) is not None:
            yield message
