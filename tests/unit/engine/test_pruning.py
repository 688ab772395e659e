"""Two prunes at once: the second is refused in Docker's words, and none is locked out later.

And of images a prune takes what it chose, as it was then.
"""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest

from cais.api.errors import status_of
from cais.engine.images import Images
from cais.engine.pruning import PruneRunningError, PruneTurn
from cais.errors import InvalidArgumentError
from cais.images import archive
from cais.testing.image_store import config_of, docker_archive, hex_digest, open_image_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.images.store import ImageStore
    from cais.spec.digest import ImageId

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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path / "images") as opened:
        yield opened


def load(store: ImageStore, author: str, *names: str) -> ImageId:
    layer = bytes(1024)
    config = config_of([hex_digest(layer)], author=author)
    content = docker_archive([layer], names, config=config)
    return archive.load(io.BytesIO(content), store)[0].id


async def test_an_image_pulled_while_others_are_measured_is_not_pruned(
    bench: Any, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the name of one that was chosen, nor one that was chosen itself."""
    load(store, "old", "app:latest")
    again = load(store, "again", "again:1")
    nameless = load(store, "nameless")
    bench.core.images = store
    images = Images(bench.core)
    measure = images._disk.parts

    def measure_and_pull(record: Any) -> Any:
        load(store, "new", "app:latest")
        load(store, "again", "again:1")
        store.tag(nameless, "kept:1")
        return measure(record)

    monkeypatch.setattr(images._disk, "parts", measure_and_pull)
    assert (await images.prune({"dangling": ["false"]}))["ImagesDeleted"] is None
    assert store.resolve("app").config.author == "new"
    assert (store.resolve("again:1").id, store.resolve("kept:1").id) == (again, nameless)
    monkeypatch.undo()
    await images.prune({"dangling": ["false"]})
    assert store.list() == []
