"""Two prunes at once: the second is refused in Docker's words, and none is locked out later."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cais.api.errors import status_of
from cais.engine.pruning import PruneRunningError, PruneTurn
from cais.errors import InvalidArgumentError

REFUSED = "a prune operation is already running"


@pytest.mark.parametrize("kind", ["containers", "images", "volumes"])
async def test_the_second_one_is_refused(bench: Any, kind: str) -> None:
    await bench.create("one")
    service = getattr(bench.engine, kind)
    done, refused = await asyncio.gather(service.prune(), service.prune(), return_exceptions=True)
    assert "SpaceReclaimed" in done
    assert isinstance(refused, PruneRunningError)
    assert (status_of(refused), str(refused)) == (409, REFUSED)
    assert "SpaceReclaimed" in await service.prune()


async def test_containers_and_networks_have_one_turn(bench: Any) -> None:
    await bench.create("one")
    engine = bench.engine
    containers, networks, volumes = await asyncio.gather(
        engine.containers.prune(),
        engine.networks.prune(),
        engine.volumes.prune(),
        return_exceptions=True,
    )
    assert len(containers["ContainersDeleted"]) == 1
    assert str(networks) == REFUSED
    assert volumes["VolumesDeleted"] is None
    assert await engine.networks.prune() == {"NetworksDeleted": None}


@pytest.mark.parametrize("kind", ["containers", "images", "networks"])
async def test_a_failed_one_lets_the_next_one_in(bench: Any, kind: str) -> None:
    service = getattr(bench.engine, kind)
    for _ in range(2):
        with pytest.raises(InvalidArgumentError, match="invalid filter"):
            await service.prune({"nosuch": ["1"]})


def test_a_turn_taken_away_by_cancellation_comes_back() -> None:
    turn = PruneTurn()
    with pytest.raises(asyncio.CancelledError), turn:
        raise asyncio.CancelledError
    with turn, pytest.raises(PruneRunningError, match=REFUSED), turn:
        pass
