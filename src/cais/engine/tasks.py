"""Work that outlives the request that began it."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from cais.errors import CaisError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8


class Threads:
    """The bounded pool for the synchronous rooms, and the one thread the network room wants."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._network = ThreadPoolExecutor(1, thread_name_prefix="network")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks, in the pool."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))

    async def run_network(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that touches the network room, one after the other."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._network, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Wait for the threads. Blocks: until what they do is done."""
        self._pool.shutdown(cancel_futures=True)
        self._network.shutdown()


class Background:
    """Tasks of the engine: kept from being collected, their failures logged, ended by close."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cleanups: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_cleanup(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Like ``spawn``; ``quiesce`` and ``close`` wait for it."""
        task = self.spawn(work, name)
        self._cleanups.add(task)
        task.add_done_callback(self._cleanups.discard)
        return task

    async def complete(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run ``work`` to its end even if the caller is cancelled (its client went away).

        Its failure is the caller's, or logged when the caller is gone.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._ended)
            raise

    async def quiesce(self) -> None:
        """Wait for every clean-up that runs now."""
        if self._cleanups:
            await asyncio.wait(tuple(self._cleanups))

    async def close(self, grace_s: float) -> None:
        """Let clean-ups end for a while, then cancel everything."""
        if self._cleanups:
            await asyncio.wait(tuple(self._cleanups), timeout=grace_s)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (failure := task.exception()) is None:
            return
        if isinstance(failure, CaisError):
            log.error("task %s failed: %s", task.get_name(), failure)
        else:
            log.error("task %s failed", task.get_name(), exc_info=failure)
