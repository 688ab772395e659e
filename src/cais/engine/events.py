"""What happened: the last 256 events and whoever listens."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from cais.engine.filters import matches_labels, parse_filters
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Filters = Mapping[str, Sequence[str]]

KEPT = 256
QUEUED = 1024
"""A subscriber that is further behind than this is dropped."""

_RESOURCES = ("container", "image", "volume", "network", "daemon", "plugin")
_FILTERS = frozenset(
    (*_RESOURCES, "event", "label", "type", "scope", "node", "service", "secret", "config")
)


class Subscription:
    """An async iterator of event documents (API shape: Type, Action, Actor, scope, time, timeNano).

    Ends when ``until`` has passed, when ``close`` is called, or when it fell too far behind.
    """

    def __init__(self, events: Events, filters: Filters, until_s: float | None) -> None:
        self._events = events
        self._filters = filters
        self._queue: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._is_closed = False
        self._timer = (
            None
            if until_s is None
            else asyncio.get_running_loop().call_later(max(0.0, until_s), self.close)
        )

    def offer(self, event: dict[str, Any]) -> None:
        """Queue an event if it passes the filters; a subscriber too far behind is closed."""
        if self._is_closed or not matches_event(event, self._filters):
            return
        self._queue.append(event)
        if len(self._queue) > QUEUED:
            self.close()
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._queue:
            if self._is_closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    def close(self) -> None:
        """Stop listening; idempotent. What is queued can still be read."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._events.forget(self)
        self._wake.set()


class Events:
    """The event bus: publishing never waits for anyone."""

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._subscriptions: set[Subscription] = set()
        self._last_ns = 0

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        """Tell every subscriber; times never go back, so that ``since`` finds all."""
        self._last_ns = now_ns = max(self._wall_ns(), self._last_ns + 1)
        event: dict[str, Any] = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": dict(attributes)},
            "scope": "local",
            "time": now_ns // 1_000_000_000,
            "timeNano": now_ns,
        }
        self._kept.append(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)

    def subscribe(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Filters | None = None,
    ) -> Subscription:
        """Listen from now on, or from the kept events since a Unix time. Not a coroutine.

        Raises:
            InvalidArgumentError: unknown filter, or ``since_ns`` after ``until_ns``.

        """
        if since_ns is not None and until_ns is not None and until_ns < since_ns:
            raise InvalidArgumentError("`since` time cannot be after `until` time")
        checked = parse_filters(filters, _FILTERS)
        remaining = None if until_ns is None else (until_ns - self._wall_ns()) / 1e9
        subscription = Subscription(self, checked, remaining)
        if since_ns is not None or until_ns is not None:
            self._replay(subscription, since_ns or 0, until_ns)
        if remaining is not None and remaining <= 0:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Send nothing more to a subscription."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._subscriptions)

    def _replay(self, subscription: Subscription, since_ns: int, until_ns: int | None) -> None:
        recent = itertools.dropwhile(lambda event: event["timeNano"] < since_ns, self._kept)
        for event in recent:
            if until_ns is not None and event["timeNano"] > until_ns:
                return
            subscription.offer(event)


def matches_event(event: Mapping[str, Any], filters: Filters) -> bool:
    """Whether an event passes: values of one filter are alternatives, filters add up."""
    kind, action = event["Type"], event["Action"]
    actor = event["Actor"]
    attributes: Mapping[str, str] = actor["Attributes"]
    for name, values in filters.items():
        if name == "label":
            if not matches_labels(attributes, values):
                return False
        elif name == "event":
            if action not in values and action.split(":")[0] not in values:
                return False
        elif name in ("type", "scope"):
            if event["Type" if name == "type" else "scope"] not in values:
                return False
        elif name != kind or not _names_actor(kind, actor["ID"], attributes, values):
            return False
    return True


def _names_actor(
    kind: str, actor_id: str, attributes: Mapping[str, str], values: Sequence[str]
) -> bool:
    name = attributes.get("name", "")
    for value in values:
        if value in (actor_id, name, "/" + name) or actor_id.startswith(value):
            return True
        if kind == "image" and _without_tag(value) in (_without_tag(actor_id), _without_tag(name)):
            return True
    return False


def _without_tag(name: str) -> str:
    head, separator, tail = name.rpartition(":")
    return head if separator and "/" not in tail else name
