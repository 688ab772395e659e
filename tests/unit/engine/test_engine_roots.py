"""The layer of mount points between an image and its containers, over hostile images."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cais.content.store import ContentStore
from cais.engine.roots import prepare_root
from cais.images.store import ImageStore
from cais.snapshots.overlay import OverlaySnapshotter

CHAIN = "sha256:" + "1" * 64
ALL = [".dockerenv", "dev", "etc", "proc", "sys"]


@contextmanager
def image(root: Path, fill: Callable[[Path], object]) -> Iterator[Any]:
    """Give the parts of an engine with one layer, filled by ``fill``."""
    snapshots = OverlaySnapshotter(root / "snapshots")
    snapshots.prepare("import", None)
    fill(Path(snapshots.layer("import").path))
    snapshots.commit("import", CHAIN)
    store = ImageStore.open(root, ContentStore(root / "content"), snapshots)
    if not any(one.key == CHAIN for one in snapshots.walk()):  # no image has it: collected
        snapshots.prepare("import", None)
        fill(Path(snapshots.layer("import").path))
        snapshots.commit("import", CHAIN)
    try:
        yield SimpleNamespace(images=store, snapshots=snapshots)
    finally:
        store.close()
        snapshots.close()


def made(core: Any) -> Path:
    """Return the directory of the layer a new container stands on."""
    prepare_root(core, "a" * 64, CHAIN)
    return Path(core.snapshots.layer("a" * 64).lowers[0])


def test_an_empty_image_gets_every_place(tmp_path: Path) -> None:
    with image(tmp_path, lambda _: None) as core:
        layer = made(core)
        assert sorted(os.listdir(layer)) == ALL
        assert sorted(os.listdir(layer / "etc")) == ["hostname", "hosts", "mtab", "resolv.conf"]
        assert os.readlink(layer / "etc/mtab") == "/proc/mounts"


def test_containers_of_an_image_share_the_layer_and_it_goes_with_it(tmp_path: Path) -> None:
    with image(tmp_path, lambda _: None) as core:
        prepare_root(core, "a" * 64, CHAIN)
        prepare_root(core, "b" * 64, CHAIN)
        assert len(list(core.snapshots.walk())) == 4
        for key in ("a" * 64, "b" * 64):
            core.snapshots.remove(key)
        core.images.collect()
        assert list(core.snapshots.walk()) == []


def test_what_the_image_has_is_not_made_again(tmp_path: Path) -> None:
    def fill(root: Path) -> None:
        (root / "etc").mkdir(mode=0o700)
        (root / "etc/hosts").write_text("mine")
        (root / "proc").mkdir()

    with image(tmp_path, fill) as core:
        layer = made(core)
        assert sorted(os.listdir(layer)) == [".dockerenv", "dev", "etc", "sys"]
        assert sorted(os.listdir(layer / "etc")) == ["hostname", "mtab", "resolv.conf"]
        assert os.stat(layer / "etc").st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("target", ["/tmp", "../../../..", "{outside}", "/proc/self/cwd"])
def test_links_of_the_image_are_left_alone(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def fill(root: Path) -> None:
        for name in ALL:
            os.symlink(target.format(outside=outside), root / name)

    with image(tmp_path, fill) as core:
        assert os.listdir(made(core)) == []
    assert os.listdir(outside) == []


def test_links_inside_etc_are_left_alone(tmp_path: Path) -> None:
    def fill(root: Path) -> None:
        (root / "etc").mkdir()
        os.symlink(tmp_path / "victim", root / "etc/resolv.conf")
        os.mkfifo(root / "etc/hosts")

    with image(tmp_path, fill) as core:
        assert sorted(os.listdir(made(core) / "etc")) == ["hostname", "mtab"]
    assert not (tmp_path / "victim").exists()
