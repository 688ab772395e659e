"""The event bus: order, filters, replay, slow listeners."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cais.engine.events import KEPT, QUEUED, Events
from cais.errors import InvalidArgumentError
from cais.testing.waiting import PATIENCE_S


class Wall:
    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


async def drain(subscription: Any) -> list[str]:
    subscription.close()
    return [event["Action"] async for event in subscription]


async def test_events_have_dockers_shape_and_times_that_never_go_back() -> None:
    wall = Wall()
    events = Events(wall)
    listening = events.subscribe()
    events.publish("container", "start", "id", {"name": "web"})
    wall.now_ns -= 500
    events.publish("container", "die", "id", {"name": "web", "exitCode": "0"})
    listening.close()
    first, second = [event async for event in listening]
    assert first == {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "id", "Attributes": {"name": "web"}},
        "scope": "local",
        "time": 1000,
        "timeNano": 1_000_000_000_000,
    }
    assert second["timeNano"] > first["timeNano"]


async def test_only_the_last_are_kept_for_since() -> None:
    wall = Wall()
    events = Events(wall)
    for number in range(KEPT + 10):
        wall.now_ns += 1_000_000_000
        events.publish("container", f"a{number}", "id", {})
    assert await drain(events.subscribe()) == []
    replayed = await drain(events.subscribe(since_ns=1))
    assert (len(replayed), replayed[0], replayed[-1]) == (KEPT, "a10", f"a{KEPT + 9}")
    middle = wall.now_ns - 2_000_000_000
    assert await drain(events.subscribe(since_ns=middle)) == [f"a{KEPT + 9 - n}" for n in (2, 1, 0)]
    past = events.subscribe(since_ns=1, until_ns=wall.now_ns - 1_000_000_000)
    assert len([event async for event in past]) == KEPT - 1


async def test_until_in_the_future_ends_the_subscription() -> None:
    wall = Wall()
    events = Events(wall)
    listening = events.subscribe(until_ns=wall.now_ns + 20_000_000)
    events.publish("container", "start", "id", {})
    actions = await asyncio.wait_for(_all(listening), PATIENCE_S)
    assert actions == ["start"]
    assert events.listeners == 0


async def _all(subscription: Any) -> list[str]:
    return [event["Action"] async for event in subscription]


async def test_a_listener_too_far_behind_is_dropped() -> None:
    events = Events()
    slow, quick = events.subscribe(), events.subscribe()
    for _ in range(QUEUED + 5):
        events.publish("container", "start", "id", {})
        await anext(quick)
    assert events.listeners == 1
    assert len(await drain(slow)) == QUEUED + 1


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"type": ["image"]}, ["pull"]),
        ({"event": ["exec_start"]}, ["exec_start: sh"]),
        ({"event": ["start", "die"]}, ["start", "die"]),
        ({"container": ["web"]}, ["start", "exec_start: sh"]),
        ({"container": ["c1"]}, ["start", "exec_start: sh"]),
        ({"container": ["web", "db"]}, ["start", "exec_start: sh", "die"]),
        ({"label": ["tier=1"]}, ["die"]),
        ({"image": ["busybox"]}, ["pull"]),
        ({"image": ["busybox:latest"]}, ["pull"]),
        ({"container": ["db"], "event": ["die"]}, ["die"]),
        ({"scope": ["swarm"]}, []),
    ],
)
async def test_filters(filters: dict[str, list[str]], wanted: list[str]) -> None:
    events = Events()
    listening = events.subscribe(filters=filters)
    events.publish("container", "start", "c1", {"name": "web", "image": "busybox"})
    events.publish("container", "exec_start: sh", "c1", {"name": "web", "image": "busybox"})
    events.publish("container", "die", "c2", {"name": "db", "image": "pg", "tier": "1"})
    events.publish("image", "pull", "busybox:latest", {"name": "busybox"})
    assert await drain(listening) == wanted


async def test_unknown_filters_and_impossible_times_are_refused() -> None:
    events = Events()
    with pytest.raises(InvalidArgumentError, match="invalid filter 'colour'"):
        events.subscribe(filters={"colour": ["red"]})
    with pytest.raises(InvalidArgumentError, match="cannot be after"):
        events.subscribe(since_ns=2, until_ns=1)
