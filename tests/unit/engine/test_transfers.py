"""Pulls in the engine: which are one, and what is said at the end."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from cais.registry.credentials import ANONYMOUS, Credentials
from cais.spec.platform import Platform
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cais.registry.cancel import Cancel
    from cais.spec.reference import Reference

ANN = Credentials("ann", "secret")
WAIT_S = PATIENCE_S


class FakeRemote:
    """Registries that answer when ``go_on`` is set; a pull brings something new, or not."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.pulls: list[tuple[str, str, Credentials]] = []
        self.news = {"1": True}

    def pull(
        self,
        wanted: Reference,
        platform: Platform | None,
        credentials: Credentials,
        report: Any,
        cancel: Cancel,
    ) -> bool:
        del cancel
        self.pulls.append((str(wanted), str(platform), credentials))
        report({"status": "asked"})
        assert self.go_on.wait(WAIT_S)
        return self.news.get(wanted.tag or "", False)

    def each_tag(self, wanted: Reference, *_: object) -> list[Reference]:
        return [type(wanted)(wanted.domain, wanted.path, tag) for tag in ("1", "2")]

    def close(self) -> None:
        pass


@pytest.fixture
def remote(bench: Any) -> FakeRemote:
    fake = FakeRemote()
    bench.engine.transfers._remote_ = fake
    return fake


async def statuses(messages: AsyncIterator[dict[str, Any]]) -> list[str]:
    return [message["status"] async for message in messages]


async def test_who_asks_for_the_same_as_the_same_user_shares_it(
    bench: Any, remote: FakeRemote
) -> None:
    """Another user, or one without a secret, gets nothing that was fetched with it."""
    pull = bench.engine.transfers.pull
    asked = [
        pull("box", "1", credentials=ANN),
        pull("box", "1", credentials=ANN),
        pull("box:1", credentials=ANN),
        pull("box", "1", credentials=ANONYMOUS),
        pull("box", "1", credentials=Credentials("ann", "other")),
        pull("box", "1", credentials=ANN, platform=Platform("linux", "arm64")),
        pull("box", "2", credentials=ANN),
    ]
    for one in asked:  # begun, one after the other
        assert (await anext(one))["status"] == "asked"
    remote.go_on.set()
    for one in asked:
        await statuses(one)
    assert len(remote.pulls) == len(set(remote.pulls)) == 5


async def test_one_status_for_all_tags(bench: Any, remote: FakeRemote) -> None:
    remote.go_on.set()
    pull = bench.engine.transfers.pull
    said = await statuses(pull("box", credentials=ANN, all_tags=True))
    assert said == ["asked", "asked", "Status: Downloaded newer image for box"]
    remote.news.clear()
    assert (await statuses(pull("box", credentials=ANN, all_tags=True)))[-1] == (
        "Status: Image is up to date for box"
    )
    assert (await statuses(pull("box", credentials=ANN)))[-1] == (
        "Status: Image is up to date for box:latest"
    )


async def test_who_leaves_alone_ends_it(bench: Any, remote: FakeRemote) -> None:
    pull = bench.engine.transfers.pull("box", "1", credentials=ANN)
    await anext(pull)
    remote.go_on.set()
    await asyncio.wait_for(pull.aclose(), WAIT_S)
    assert not bench.engine.transfers._pulls
