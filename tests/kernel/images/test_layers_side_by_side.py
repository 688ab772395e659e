"""Layers of an image are unpacked at once and still become what one after the other would."""

import io
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cais.errors import CaisError, InvalidArgumentError
from cais.images import archive, layer_imports, layer_stack
from cais.images.layers import PackedLayer, unpack_layers
from cais.images.store import ImageStore
from cais.images.unpack import Limits
from cais.images.unpacker.pool import Unpacker
from cais.spec.digest import DiffId
from cais.spec.image import OCI_LAYER
from cais.testing.image_store import docker_archive, left_over, open_image_store
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, tar

PATIENCE_S = 60
LOWER = tar(
    [
        Member("./", kind=b"5", mode=0o711, uid=7),
        Member("directory/", kind=b"5", mode=0o750),
        Member("directory/old", b"old"),
        Member("link", kind=b"2", link="directory"),
    ]
)
FREE = tar([Member("free", b"needs nothing below")])
BOUND = tar([Member("directory/.wh.old"), Member("link/new", b"through the link")])


def directories(store: ImageStore, name: str = "test") -> list[Path]:
    record = store.resolve(name)
    assert record.chain_id
    layer = store.snapshotter.layer(record.chain_id)
    return [Path(path) for path in (layer.path, *layer.lowers)]


def load(store: ImageStore, layers: list[bytes], name: str = "test:latest") -> None:
    archive.load(io.BytesIO(docker_archive(layers, (name,))), store)


Fill = Callable[..., Any]


def watched(monkeypatch: pytest.MonkeyPatch, around: Callable[[Fill, int], Any]) -> None:
    """Have ``around`` called for each layer that is unpacked, with its number."""
    lock, numbers = threading.Lock(), iter(range(1000))

    def fill(*arguments: Any, **options: Any) -> Any:
        with lock:
            number = next(numbers)
        return around(lambda: layer_imports.fill(*arguments, **options), number)

    monkeypatch.setattr(layer_stack, "fill", fill)


def test_a_layer_does_not_wait_for_the_one_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_is_done = threading.Event()

    def around(fill: Fill, number: int) -> Any:
        if number == 0:
            assert second_is_done.wait(PATIENCE_S), "the layer above waits"
            return fill()
        try:
            return fill()
        finally:
            second_is_done.set()

    def body() -> None:
        with open_image_store(tmp_path) as store:
            watched(monkeypatch, around)
            load(store, [LOWER, FREE])
            upper, lower = directories(store)
            assert os.listdir(upper) == ["free"]
            assert sorted(os.listdir(lower)) == ["directory", "link"]
            facts = upper.stat()
            assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o711, 7)

    isolated(body)


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_a_layer_that_needs_those_below_waits_for_them(tmp_path: Path, parallel: int) -> None:
    def body() -> None:
        with open_image_store(tmp_path) as store:
            store.unpacker = Unpacker(parallel)
            load(store, [LOWER, FREE, BOUND, FREE, BOUND])
            _, _, bound, _, _ = directories(store)
            whiteout = (bound / "directory/old").stat()
            assert stat.S_ISCHR(whiteout.st_mode)
            assert whiteout.st_rdev == 0
            assert (bound / "directory/new").read_bytes() == b"through the link"
            assert not (bound / "link").exists()
            assert stat.S_IMODE((bound / "directory").stat().st_mode) == 0o750

    isolated(body)


def test_what_befell_the_lowest_layer_is_what_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    def body() -> None:
        with open_image_store(tmp_path) as store:
            before = left_over(store)
            broken = tar([Member("../outside")])
            with pytest.raises(InvalidArgumentError, match=r"'\.\./outside'"):
                load(store, [FREE, broken, BOUND, tar([Member("")]), FREE])
            assert left_over(store) == before
            load(store, [LOWER, BOUND])

    isolated(body)


def test_an_operation_that_fails_elsewhere_ends_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next blob does not come: a layer that is being unpacked is given up."""
    is_unpacking = threading.Event()

    def around(fill: Fill, _: int) -> Any:
        is_unpacking.set()
        return fill()

    def body() -> None:
        with open_image_store(tmp_path) as store:
            watched(monkeypatch, around)
            before = left_over(store)
            with store.content.leases.open() as lease:
                blob = store.content.write(tar([Member("f", bytes(1 << 20))] * 64), lease)

                def arrivals() -> Any:
                    yield PackedLayer(DiffId(blob.digest), blob, OCI_LAYER)
                    assert is_unpacking.wait(PATIENCE_S)
                    raise CaisError("the registry is gone")

                with pytest.raises(CaisError, match="the registry is gone"):
                    unpack_layers(store, lease, arrivals())
            store.collect()
            assert left_over(store) == before

    isolated(body)


def test_many_who_want_one_image_have_it_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def around(fill: Fill, number: int) -> Any:
        counted.append(number)
        return fill()

    def body() -> None:
        with open_image_store(tmp_path) as store, ThreadPoolExecutor(20) as threads:
            watched(monkeypatch, around)
            names = [f"test{number}:latest" for number in range(20)]
            list(threads.map(lambda name: load(store, [LOWER, FREE, BOUND], name), names))
            assert len(counted) == 3
            assert {tuple(directories(store, name)) for name in names} == {
                tuple(directories(store, "test0"))
            }

    isolated(body)


def test_more_layers_below_than_one_packet_carries(tmp_path: Path) -> None:
    lowers = [tmp_path / f"lower{number}" for number in range(450)]
    for lower in lowers:
        lower.mkdir()
    (lowers[-1] / "deep").mkdir(mode=0o705)
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "archive").write_bytes(tar([Member("deep/file", b"x")]))

    def body() -> None:
        unpacker = Unpacker()
        with unpacker.open(), open(tmp_path / "archive", "rb") as layer:
            loan = unpacker.borrow()
            loan.worker.unpack(
                layer.fileno(),
                os.fspath(root),
                lambda: [os.fspath(lower) for lower in lowers],
                limits=Limits(),
                is_verified=True,
                report=lambda _: None,
            )
            loan.give_back()
        assert stat.S_IMODE((root / "deep").stat().st_mode) == 0o705

    isolated(body)
