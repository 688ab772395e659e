"""Work in a thread whose messages go to everybody who follows it, and which lasts as long as they.

Whoever asks for the same thing while it is under way follows what runs instead of beginning anew.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cais.registry.cancel import Cancel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    Report = Callable[[Mapping[str, Any]], None]

T = TypeVar("T")


class SharedWork(Generic[T]):
    """One piece of work. Made, and followed, in the event loop.

    Args:
        work: is given what to tell messages, and what it is cancelled by; blocks.
        run: runs it in a thread.

    """

    def __init__(
        self,
        work: Callable[[Report, Cancel], T],
        run: Callable[[Callable[[], T]], Awaitable[T]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._cancel = Cancel()
        self._followers: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._said: dict[str, dict[str, Any]] = {}
        self._task = asyncio.ensure_future(run(lambda: work(self._report, self._cancel)))
        self._task.add_done_callback(lambda _: self._tell(None))

    @property
    def is_open(self) -> bool:
        """Whether there is still something to follow."""
        return not (self._cancel.is_set or self._task.done())

    async def follow(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield the messages, first the last one of each line that was said already.

        When nobody follows any more the work is cancelled; that it has ended is then waited for.
        """
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        for message in self._said.values():
            queue.put_nowait(message)
        if self._task.done():
            queue.put_nowait(None)
        self._followers.add(queue)
        try:
            while (message_ := await queue.get()) is not None:
                yield message_
        finally:
            self._followers.discard(queue)
            if not self._followers:
                self._cancel.set()
                await asyncio.gather(self._task, return_exceptions=True)

    async def result(self) -> T:
        """Return what the work returned, or raise what it raised."""
        return await asyncio.shield(self._task)

    def _report(self, message: Mapping[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._tell, dict(message))

    def _tell(self, message: dict[str, Any] | None) -> None:
        if message is not None:
            line = message.get("id") or message.get("status") or ""
            self._said[str(line)] = message
        for queue in self._followers:
            queue.put_nowait(message)
