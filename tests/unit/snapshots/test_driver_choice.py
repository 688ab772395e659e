"""Which storage driver a data root gets, without mounting anything."""

import logging
from pathlib import Path

import pytest

from cais.errors import ConflictError, UnsupportedError
from cais.snapshots import differences, drivers
from cais.snapshots.drivers import open_snapshotter
from cais.snapshots.rows import Rows


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The drivers that work here; all at first, but btrfs asks the disk itself."""
    names = set(drivers.DRIVERS)

    def probe(_: str, name: str) -> None:
        if name not in names:
            raise UnsupportedError("driver not supported")

    monkeypatch.setattr(drivers, "_probe", probe)
    return names


def driver_of(root: Path, wanted: str = "") -> str:
    snapshotter = open_snapshotter(root, wanted)
    snapshotter.close()
    return snapshotter.driver


def prepare(root: Path, wanted: str) -> None:
    snapshotter = open_snapshotter(root, wanted)
    snapshotter.prepare("container", None)
    snapshotter.close()


def test_the_first_that_works_is_taken(
    tmp_path: Path, usable: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert driver_of(tmp_path / "a") == "overlay2"
    usable.remove("overlay2")
    assert driver_of(tmp_path / "b") == "fuse-overlayfs"
    usable.remove("fuse-overlayfs")
    with caplog.at_level(logging.WARNING):
        assert driver_of(tmp_path / "c") in ("vfs", "btrfs")
    assert "storage driver overlay2: error initializing graphdriver" in caplog.text


def test_a_data_root_keeps_its_driver(tmp_path: Path, usable: set[str]) -> None:
    assert driver_of(tmp_path, "vfs") == "vfs"
    assert driver_of(tmp_path) == "vfs"
    usable.remove("vfs")
    with pytest.raises(UnsupportedError, match=r"error initializing graphdriver: .*: vfs"):
        driver_of(tmp_path)


@pytest.mark.usefixtures("usable")
def test_a_store_from_before_there_was_a_choice_is_an_overlays(tmp_path: Path) -> None:
    prepare(tmp_path, "overlay2")
    rows = Rows(tmp_path / "snapshots.db")
    rows.set_driver("")
    rows.close()
    assert driver_of(tmp_path) == "overlay2"


@pytest.mark.usefixtures("usable")
def test_another_driver_is_refused_while_there_are_containers(tmp_path: Path) -> None:
    prepare(tmp_path, "vfs")
    with pytest.raises(ConflictError, match="containers of the storage driver 'vfs'"):
        driver_of(tmp_path, "overlay2")
    snapshotter = open_snapshotter(tmp_path)
    snapshotter.commit("container", "image")
    snapshotter.close()
    assert driver_of(tmp_path, "overlay2") == "overlay2"
    snapshotter = open_snapshotter(tmp_path)
    assert [snapshot.key for snapshot in snapshotter.walk()] == ["image"]
    snapshotter.close()


@pytest.mark.usefixtures("usable")
def test_layers_from_an_overlay_are_stacked_by_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted in them would show."""
    place = ["overlayfs"]
    for module in (differences, drivers):
        monkeypatch.setattr(module, "describe_backing", lambda _: place[0])
    prepare(tmp_path, "vfs")
    place[0] = "extfs"
    snapshotter = open_snapshotter(tmp_path)
    snapshotter.commit("container", "image")
    snapshotter.close()
    for name in ("overlay2", "fuse-overlayfs"):
        with pytest.raises(ConflictError, match=r"unpacked on an overlay.*remove the images first"):
            driver_of(tmp_path, name)
    snapshotter = open_snapshotter(tmp_path)
    snapshotter.remove("image")
    snapshotter.close()
    prepare(tmp_path, "overlay2")
    assert driver_of(tmp_path) == "overlay2"


def test_an_unknown_driver_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="driver not supported: aufs"):
        driver_of(tmp_path, "aufs")
    assert list(tmp_path.iterdir()) == []


def test_what_fuse_overlayfs_needs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "FUSE_PROGRAM", "absent-program")
    with pytest.raises(UnsupportedError, match="absent-program is not installed"):
        driver_of(tmp_path, "fuse-overlayfs")


def test_btrfs_needs_btrfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cais.linux.btrfs.is_btrfs", lambda _: False)
    with pytest.raises(UnsupportedError, match="wrong filesystem"):
        driver_of(tmp_path, "btrfs")
