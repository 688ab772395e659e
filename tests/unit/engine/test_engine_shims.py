"""The link to the shim: whatever delays a successor, there will be one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cais.engine import shims
from cais.engine.paths import Paths
from cais.engine.shims import ShimLink
from cais.engine.tasks import Background
from cais.errors import ConflictError, UnavailableError
from cais.shim.values import OomEvent, ShimHello
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class FakeClient:
    """Is lost when told so."""

    def __init__(self) -> None:
        self.hello = ShimHello(1, 1, (), ())
        self.lost = asyncio.Event()
        self.wait_lost = self.lost.wait

    def close(self) -> None:
        self.lost.set()


class NoClock:
    """Sleeps no longer than a turn of the loop."""

    async def sleep(self, _delay_s: float) -> None:
        await asyncio.sleep(0)


class Starts:
    """In place of ``ensure_shim``: does what ``coming`` says, one after the other."""

    def __init__(self) -> None:
        self.coming: list[Exception | FakeClient] = []

    async def __call__(self, *_roots: Path, on_event: Any) -> FakeClient:
        self.on_event = on_event
        outcome = self.coming.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts = Starts()
    monkeypatch.setattr(shims, "ensure_shim", starts)
    return starts


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[ShimLink]:
    background = Background()
    paths = Paths(tmp_path / "data", tmp_path / "exec")
    link = ShimLink(paths, background, NoClock())  # type: ignore[arg-type]
    yield link
    link.close()
    await background.close(0)


async def test_a_lock_that_outlasts_a_killed_shim_ends_no_container_for_ever(
    starts: Starts, link: ShimLink
) -> None:
    first, second = FakeClient(), FakeClient()
    starts.coming = [first, ConflictError("held by another shim"), UnavailableError("x"), second]
    replaced = asyncio.Event()

    async def on_replaced(_hello: ShimHello) -> None:
        replaced.set()

    link.on_replaced = on_replaced
    await link.open()
    first.lost.set()
    await asyncio.wait_for(replaced.wait(), PATIENCE_S)
    assert link.client is second  # type: ignore[comparison-overlap]


async def test_events_are_delivered_though_adopting_failed(
    starts: Starts, link: ShimLink, caplog: pytest.LogCaptureFixture
) -> None:
    first = FakeClient()
    starts.coming = [first, FakeClient()]
    told: asyncio.Queue[object] = asyncio.Queue()
    event = OomEvent("a", 1)

    async def on_replaced(_hello: ShimHello) -> None:
        starts.on_event(event)
        assert told.empty()
        raise ConflictError("no luck")

    link.on_event = told.put_nowait
    link.on_replaced = on_replaced
    await link.open()
    link.release_events()
    first.lost.set()
    assert await asyncio.wait_for(told.get(), PATIENCE_S) is event
    await asyncio.sleep(0)
    assert "task shim-watch failed: no luck" in caplog.text
