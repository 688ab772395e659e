"""What happened: the last 256 events and whoever listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Subscription:
    """An async iterator of event documents (API shape: Type, Action, Actor, scope, time, timeNano).

    Ends when ``until`` has passed, when ``close`` is called, or when it fell too far behind.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening; idempotent."""
        raise NotImplementedError


class Events:
    """The event bus."""

    def subscribe(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Subscription:
        """Listen from now on, or from the kept events since a Unix time. Not a coroutine.

        Raises:
            InvalidArgumentError: unknown filter, or ``since`` after ``until``.

        """
        raise NotImplementedError
