"""Killed at any step, a snapshotter opens again with all that was promised and no remains.

The child is killed before its first, second, third ... call that gives a directory a name or takes
it, or makes a subvolume, until it gets through to the end. What happens to directories that have
no name yet makes no difference.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from driver_kit import every_driver, layer, mounted, on_driver, opened

from cais.snapshots.snapshotter import Kind

CLONE_OF_A_FILE = 0x40049409
PLACES = {"trash", "trees", "work"}


def killed_at(step: int, body: Callable[[], None]) -> bool:
    """Run ``body`` in a child that is killed before its ``step``-th change; False: it ended."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            names = event in ("os.rename", "os.rmdir")
            if names or (event == "fcntl.ioctl" and arguments[1] != CLONE_OF_A_FILE):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            body()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def fill(top: Path) -> None:
    (top / "file").write_text("of the image")
    (top / "gone").write_text("of the image")


def prepare(place: str, root: Path, top: Path) -> None:
    """Two layers and a container that was started once."""
    with opened(place, root) as snapshotter:
        layer(snapshotter, "base", None, fill)
        layer(snapshotter, "image", "base", lambda path: (path / "more").touch())
        snapshotter.prepare("old", "image")
        with mounted(snapshotter.mounts("old"), top / "mounted") as tree:
            (tree / "file").write_text("written before")
            (tree / "gone").unlink()


def check(place: str, root: Path, top: Path) -> None:
    """What was promised is there, and every directory belongs to a snapshot."""
    with opened(place, root) as snapshotter:
        with mounted(snapshotter.mounts("old"), top / "mounted") as tree:
            assert (tree / "file").read_text() == "written before"
            assert sorted(os.listdir(tree)) == ["file", "more"]
        known = {str(snapshot.key): snapshot.kind for snapshot in snapshotter.walk()}
        assert known["base"] is known["image"] is Kind.COMMITTED
        if "committed" in known:
            snapshotter.prepare("probe", "committed")
            with mounted(snapshotter.mounts("probe"), top / "mounted") as tree:
                assert (tree / "new").read_text() == "of a container"
        for key, kind in known.items():
            if kind is not Kind.COMMITTED and key not in ("old", "probe"):
                snapshotter.remove(key)
        for key in ("probe", "committed", "old", "image", "base"):
            if key in {str(snapshot.key) for snapshot in snapshotter.walk()}:
                snapshotter.remove(key)
    assert set(os.listdir(root)) >= PLACES
    assert [name for name in os.listdir(root) if "." not in name and name not in PLACES] == []
    assert [os.listdir(root / place) for place in PLACES] == [[], [], []]


def steps_of(place: str, root: Path) -> Callable[[], None]:
    """Return a life of snapshots: started, ended, committed, removed."""

    def body() -> None:
        with opened(place, root) as snapshotter:
            snapshotter.trim("old")
            snapshotter.prepare("new", "image")
            Path(snapshotter.layer("new").path, "new").write_text("of a container")
            snapshotter.mounts("new")
            snapshotter.mounts("old")
            snapshotter.commit("new", "committed")
            snapshotter.prepare("third", "committed")
            snapshotter.mounts("third")
            snapshotter.trim("third")
            snapshotter.remove("third")

    return body


@every_driver
@pytest.mark.timeout(600)
def test_killed_between_any_two_steps(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        for step in range(1, 1000):
            root = top / f"s{step}"
            prepare(place, root, top)
            was_killed = killed_at(step, steps_of(place, root))
            check(place, root, top)
            if not was_killed:
                assert step > 5
                return
        raise AssertionError("it never came to its end")

    on_driver(place, tmp_path, body)
