"""Time as the engine sees it; tests give another one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable

NEVER = "0001-01-01T00:00:00Z"
"""How Docker writes a time that has not come."""


class Clock:
    """The machine's clocks. Intervals are monotonic; wall time is only for people to read."""

    def wall_ns(self) -> int:
        """Return Unix time in nanoseconds."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Return seconds since some moment, never going back."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Return after ``delay_s`` seconds."""
        await asyncio.sleep(delay_s)

    async def is_done_within(self, awaited: Awaitable[object], limit_s: float | None) -> bool:
        """Whether a future is done within the limit (None: wait for ever). Never cancels it."""
        future = asyncio.ensure_future(awaited)
        if future.done():
            return True
        if limit_s is None:
            await asyncio.wait({future})
            return True
        limit = asyncio.ensure_future(self.sleep(limit_s))
        try:
            await asyncio.wait({future, limit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            limit.cancel()
        return future.done()


def rfc3339(at_ns: int) -> str:
    """Write Unix nanoseconds as Docker does: UTC, no zeros at the end, 0 is ``NEVER``."""
    if at_ns <= 0:
        return NEVER
    seconds, fraction = divmod(at_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"
