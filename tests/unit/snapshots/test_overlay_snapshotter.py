"""The overlay snapshotter without mounting: its options, its disk layout, its recovery."""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cais.errors import ConflictError, DataLossError, ExhaustedError, InvalidArgumentError
from cais.snapshots import rows
from cais.snapshots.overlay import OverlaySnapshotter
from cais.snapshots.snapshotter import Kind, Mount, SnapshotNotFoundError
from cais.testing.snapshotter_suite import SNAPSHOTTER_CHECKS, Check, committed


@contextmanager
def opened(root: Path) -> Iterator[OverlaySnapshotter]:
    snapshotter = OverlaySnapshotter(root)
    try:
        yield snapshotter
    finally:
        snapshotter.close()


@pytest.mark.parametrize("check", SNAPSHOTTER_CHECKS, ids=lambda check: check.__name__)
def test_conformance(tmp_path: Path, check: Check) -> None:
    with opened(tmp_path) as snapshotter:
        check(snapshotter)


def test_mounts_of_every_kind(tmp_path: Path) -> None:
    off = ("index=off", "metacopy=off", "redirect_dir=nofollow")
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "one", None)  # number 1
        committed(snapshotter, "two", "one")  # number 2
        snapshotter.prepare("empty", None)
        snapshotter.prepare("container", "two")
        snapshotter.view("plain", "one")
        snapshotter.view("stacked", "two")
        assert snapshotter.mounts("empty") == (
            Mount("bind", f"{tmp_path}/3", options=("rw", "rbind")),
        )
        assert snapshotter.mounts("container") == (
            Mount(
                "overlay",
                "overlay",
                options=(
                    f"lowerdir={tmp_path}/2:{tmp_path}/1",
                    f"upperdir={tmp_path}/4",
                    f"workdir={tmp_path}/work/4",
                    *off,
                ),
            ),
        )
        assert snapshotter.mounts("plain") == (
            Mount("bind", f"{tmp_path}/1", options=("ro", "rbind")),
        )
        assert snapshotter.mounts("stacked") == (
            Mount("overlay", "overlay", options=(f"lowerdir={tmp_path}/2:{tmp_path}/1", *off)),
        )


def test_an_ephemeral_mount_is_not_synced_and_can_be_made_again(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None)
        snapshotter.prepare("container", "base")
        snapshotter.prepare("empty", None)
        snapshotter.view("view", "base")
        [synced] = snapshotter.mounts("container")
        mark = tmp_path / "work/2/work/incompat/volatile/dirty"  # left by the kernel
        mark.mkdir(parents=True)
        [unsynced] = snapshotter.mounts("container", ephemeral=True)
        assert unsynced.options == (*synced.options, "volatile")
        assert not mark.exists()
        for key in ("empty", "view"):
            assert snapshotter.mounts(key, ephemeral=True) == snapshotter.mounts(key)


def test_nobody_else_can_enter(tmp_path: Path) -> None:
    """CVE-2021-41091: a setuid file of a layer is not to be run by a user of the host."""
    root = tmp_path / "snapshots"
    root.mkdir(0o777)
    with opened(root):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert stat.S_IMODE((root / "snapshots.db").stat().st_mode) == 0o600


def test_the_roots_mode_is_the_parents(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        snapshotter.prepare("making", None)
        assert stat.S_IMODE(os.stat(snapshotter.layer("making").path).st_mode) == 0o755
        os.chmod(snapshotter.layer("making").path, 0o1711)
        snapshotter.commit("making", "base")
        snapshotter.prepare("container", "base")
        path = snapshotter.layer("container").path
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o1711


def test_a_prepared_snapshot_takes_no_directory(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None)
        before = sorted(os.listdir(tmp_path))
        for number in range(20):
            snapshotter.prepare(f"c{number}", "base")
        assert sorted(os.listdir(tmp_path)) == before
        assert snapshotter.usage("c3").size_bytes == 0


def test_depth_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LAYERS", 3)
    with opened(tmp_path) as snapshotter:
        parent = None
        for name in ("1", "2", "3"):
            committed(snapshotter, name, parent)
            parent = name
        snapshotter.prepare("container", "3")
        snapshotter.commit("container", "4")
        with pytest.raises(ExhaustedError, match="max depth exceeded"):
            snapshotter.prepare("too deep", "4")


def test_a_start_finishes_what_a_crash_left(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None, file="x")
        snapshotter.prepare("container", "base")
        snapshotter.mounts("container")
    os.rmdir(tmp_path / "2")  # a mkdir the power cut took away
    (tmp_path / "77").mkdir()
    (tmp_path / "77/file").write_text("of a removal that did not end")
    (tmp_path / "work/78").mkdir()
    (tmp_path / "trash/old").mkdir()
    (tmp_path / "f00d").mkdir()
    with opened(tmp_path) as snapshotter:
        assert [item.key for item in snapshotter.walk()] == ["base", "container"]
        assert os.listdir(snapshotter.layer("base").path) == ["file"]
        snapshotter.mounts("container")
        assert os.path.isdir(tmp_path / "2")
    assert sorted(name for name in os.listdir(tmp_path) if "snapshots" not in name) == [
        "1", "2", "trash", "trees", "work",
    ]  # fmt: skip
    assert os.listdir(tmp_path / "trash") == []


def test_a_missing_layer_does_not_stop_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None)
        committed(snapshotter, "other", None)
    os.rmdir(tmp_path / "1")
    with opened(tmp_path) as snapshotter:
        assert os.path.isdir(snapshotter.layer("other").path)
    assert f"layer base: {tmp_path}/1 is missing" in caplog.text


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b"])
def test_paths_that_options_cannot_hold(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="overlayfs options cannot hold"):
        OverlaySnapshotter(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_removed_trees_are_deleted_however_deep(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        snapshotter.prepare("container", None)
        fd = os.open(snapshotter.layer("container").path, os.O_RDONLY)
        for depth in range(3000):
            os.mkdir("d", dir_fd=fd)
            os.symlink("/", "l", dir_fd=fd)
            child = os.open("d", os.O_RDONLY, dir_fd=fd)
            if depth % 500 == 0:
                os.mkdir("other", dir_fd=fd)
                os.close(os.open("other/file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            os.close(fd)
            fd = child
        os.close(fd)
        snapshotter.remove("container")
    assert os.listdir(tmp_path / "trash") == []


def test_many_threads_prepare_and_remove(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(10):
                    snapshotter.prepare(f"{number}-{turn}", "base")
                    snapshotter.mounts(f"{number}-{turn}")
                    snapshotter.remove(f"{number}-{turn}")
            except BaseException as exc:  # noqa: BLE001 - shown by the assertion
                failures.append(exc)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [item.key for item in snapshotter.walk()] == ["base"]


def test_one_snapshot_mounted_by_many_threads_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None)
        snapshotter.prepare("container", "base")
        found: list[object] = []
        threads = [
            threading.Thread(target=lambda: found.append(snapshotter.mounts("container")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [snapshotter.mounts("container")] * 8
    with opened(tmp_path):
        pass
    assert sorted(name for name in os.listdir(tmp_path) if name.isalnum()) == [
        "1", "2", "trash", "trees", "work",
    ]  # fmt: skip


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    with opened(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "snapshots.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConflictError, match="schema 99, newer"):
        OverlaySnapshotter(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "snapshots.db").write_bytes(b"not a database" * 100)
    with pytest.raises(DataLossError, match=r"snapshots\.db"):
        OverlaySnapshotter(tmp_path)


def test_what_went_while_it_was_looked_at_is_not_found(tmp_path: Path) -> None:
    with contextlib.closing(rows.Rows(tmp_path / "some.db")) as table:
        table.create("a", None, Kind.ACTIVE)
        number = table.get("a").number
        assert table.lineage(number) == [number]
        table.remove("a")
        with pytest.raises(SnapshotNotFoundError):
            table.lineage(number)
