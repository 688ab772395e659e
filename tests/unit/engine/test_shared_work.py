"""Work that is shared: who hears what, and when it ends."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cais.engine.shared_work import SharedWork
from cais.errors import DeadlineError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.engine.shared_work import Report
    from cais.registry.cancel import Cancel

WAIT_S = 60


async def run(call: Callable[[], str]) -> str:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def text(message: dict[str, Any]) -> str:
    return f"{message.get('id', '')}{message['status']}"


async def all_of(work: SharedWork[str]) -> list[str]:
    return [text(message) async for message in work.follow()]


async def test_everybody_hears_all_of_it() -> None:
    go_on = threading.Event()

    def work(report: Report, _: Cancel) -> str:
        for status in ("one", "two"):
            report({"id": "a", "status": status})
        report({"status": "loose"})
        go_on.wait(WAIT_S)
        report({"id": "a", "status": "three"})
        return "done"

    shared = SharedWork(work, run)
    first = shared.follow()
    assert [text(await anext(first)) for _ in range(3)] == ["aone", "atwo", "loose"]
    late = asyncio.ensure_future(all_of(shared))
    await asyncio.sleep(0)
    go_on.set()
    assert text(await anext(first)) == "athree"
    assert await late == ["atwo", "loose", "athree"]  # of each line what was said last
    assert [message async for message in first] == []
    assert await shared.result() == "done"
    assert await all_of(shared) == ["athree", "loose"]
    assert not shared.is_open


async def test_it_lasts_as_long_as_anybody_follows() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def work(report: Report, cancel: Cancel) -> str:
        report({"status": "begun"})
        begun.set()
        try:
            cancel.sleep(WAIT_S)
        finally:
            cancelled.set()
        return "done"

    shared = SharedWork(work, run)
    followers = [shared.follow() for _ in range(3)]
    for follower in followers:
        assert text(await anext(follower)) == "begun"
    for follower in followers[:-1]:
        await follower.aclose()
        assert shared.is_open
        assert not cancelled.is_set()
    await followers[-1].aclose()
    assert cancelled.is_set()  # and not only asked to
    assert not shared.is_open
    with pytest.raises(DeadlineError):
        await shared.result()


async def test_everybody_is_told_of_a_failure() -> None:
    def work(report: Report, _: Cancel) -> str:
        report({"status": "begun"})
        raise NotFoundError("nowhere")

    shared = SharedWork(work, run)
    assert await all_of(shared) == ["begun"]
    for _ in range(2):
        with pytest.raises(NotFoundError, match="nowhere"):
            await shared.result()
