"""Waiting until an event loop and its threads have nothing left to do."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary


class ThreadWork:
    """What the loop has given to threads and has not heard of yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.futures: set[asyncio.Future[Any]] = set()
        self._run_in_executor = loop.run_in_executor
        loop.run_in_executor = self._run  # type: ignore[method-assign]

    def _run(self, *arguments: Any) -> asyncio.Future[Any]:
        future = self._run_in_executor(*arguments)
        self.futures.add(future)
        future.add_done_callback(self.futures.discard)
        return future


_thread_work: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadWork] = WeakKeyDictionary()


def watch_threads() -> None:
    """Count the running loop's work in threads from now on, for ``settle``."""
    loop = asyncio.get_running_loop()
    if loop not in _thread_work:
        _thread_work[loop] = ThreadWork(loop)


async def settle() -> None:
    """Let the loop and its threads do all they can do without time passing."""
    loop = asyncio.get_running_loop()
    idle_turns = 0
    while idle_turns < 2:  # what the first makes readable, the second sees
        await asyncio.sleep(0)
        if futures := _thread_work[loop].futures:
            await asyncio.wait(futures)
            idle_turns = 0
        elif loop._ready:  # type: ignore[attr-defined]
            idle_turns = 0
        else:
            idle_turns += 1
