"""The bounded pool in which everything that blocks is done."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

SIZE = 16


class Run(Protocol):
    """Runs a function in a thread and returns what it returns."""

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``. Cancellation: it still runs to its end, and is waited for."""
        ...


class Pool:
    """A ``Run``, to be closed."""

    def __init__(self, size: int = SIZE) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix="registry")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in one of the threads."""
        future = self._executor.submit(function, *args, **kwargs)
        task = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Whoever cleans up next must not meet it at work.
            await asyncio.wait([task])
            raise

    def close(self) -> None:
        """Wait for what runs; nothing more will."""
        self._executor.shutdown()
