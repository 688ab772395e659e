"""Snapshots whose roots are copies, without mounting: what is made when, and what readers keep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cais.snapshots import trees
from cais.snapshots.trees import NativeCopySnapshotter
from cais.testing.snapshotter_suite import SNAPSHOTTER_CHECKS, Check, committed


@contextmanager
def opened(root: Path) -> Iterator[NativeCopySnapshotter]:
    snapshotter = NativeCopySnapshotter(root)
    try:
        yield snapshotter
    finally:
        snapshotter.close()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[NativeCopySnapshotter]:
    """Give a store with the snapshot ``container`` (3) on two layers."""
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "base", None, file="text")
        committed(snapshotter, "image", "base", more="text")
        snapshotter.prepare("container", "image")
        yield snapshotter


@pytest.mark.parametrize("check", SNAPSHOTTER_CHECKS, ids=lambda check: check.__name__)
def test_conformance(tmp_path: Path, check: Check) -> None:
    with opened(tmp_path) as snapshotter:
        check(snapshotter)


def test_a_root_is_made_when_it_is_first_mounted(
    container: NativeCopySnapshotter, tmp_path: Path
) -> None:
    assert container.planned_mounts("container")[0].source == f"{tmp_path}/trees/3"
    assert not (tmp_path / "trees/3").exists()
    container.mounts("container")
    assert sorted(os.listdir(tmp_path / "trees/3")) == ["file", "more"]
    container.trim("container")
    assert os.listdir(tmp_path / "trees") == []
    assert not (tmp_path / "3").exists()


def test_only_an_untouched_copy_is_trusted_for_its_times(
    container: NativeCopySnapshotter, tmp_path: Path
) -> None:
    container.mounts("container")
    assert (tmp_path / "trees/3.made").stat().st_mtime_ns > 0
    container.prepare("written", "image")
    Path(container.layer("written").path, "file").write_text("TEXT")
    container.mounts("written")
    assert (tmp_path / "trees/4.made").stat().st_mtime_ns == 0
    assert not (tmp_path / "4").exists()


def test_a_reader_keeps_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as snapshotter:
        committed(snapshotter, "image", None, file="text")
        snapshotter.prepare("container", "image")
        snapshotter.mounts("container")
        (tmp_path / "trees/2/new").write_text("first")
        with open_directory(snapshotter.layer("container").path) as reader:
            (tmp_path / "trees/2/new").write_text("second")
            again = snapshotter.layer("container").path
            assert Path(again, "new").read_text() == "second"
            assert Path(f"/proc/self/fd/{reader}/new").read_text() == "first"
            monkeypatch.setattr(trees, "_READING_S", -1.0)  # as if an hour had gone by
            snapshotter.layer("container")
        snapshotter.remove("container")
    names = {name for name in os.listdir(tmp_path) if not name.startswith("snapshots")}
    assert names == {"1", "trash", "trees", "work"}


@contextmanager
def open_directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_many_threads_make_one_root(container: NativeCopySnapshotter, tmp_path: Path) -> None:
    import threading

    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(container.mounts("container")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [container.planned_mounts("container")] * 6
    (tmp_path / "trees/3/new").write_text("x")
    assert container.usage("container").size_bytes == 1


def test_a_start_clears_what_a_crash_left(container: NativeCopySnapshotter, tmp_path: Path) -> None:
    container.mounts("container")
    for name in (".halfway", "77", "1", "77.made"):
        (tmp_path / "trees" / name).mkdir()
    with opened(tmp_path):
        pass
    assert sorted(os.listdir(tmp_path / "trees")) == ["3", "3.made"]
