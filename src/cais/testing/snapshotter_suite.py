"""What every ``Snapshotter`` does: a list of checks, each given a fresh snapshotter.

Run it from a test of the implementation::

    @pytest.mark.parametrize("check", SNAPSHOTTER_CHECKS, ids=lambda check: check.__name__)
    def test_snapshotter(check, tmp_path):
        with open_snapshotter(tmp_path) as snapshotter:
            check(snapshotter)

No check needs a privilege: nothing is mounted.
"""

# ruff: noqa: D103 - the checks' names are the sentences

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from cais.snapshots.snapshotter import (
    Kind,
    SnapshotExistsError,
    SnapshotInUseError,
    SnapshotNotFoundError,
    SnapshotStateError,
)

if TYPE_CHECKING:
    from cais.snapshots.snapshotter import Snapshotter

Check = Callable[["Snapshotter"], None]


def committed(snapshotter: Snapshotter, name: str, parent: str | None, **files: str) -> None:
    """Make a committed snapshot with these files."""
    snapshotter.prepare(f"making-{name}", parent)
    write(snapshotter, f"making-{name}", **files)
    snapshotter.commit(f"making-{name}", name)


def write(snapshotter: Snapshotter, key: str, **files: str) -> None:
    """Write files into an active snapshot's difference."""
    for name, text in files.items():
        with open(os.path.join(snapshotter.layer(key).path, name), "w", encoding="utf-8") as file:
            file.write(text)


def a_new_snapshot_is_active_and_empty(snapshotter: Snapshotter) -> None:
    snapshotter.prepare("a", None)
    facts = snapshotter.stat("a")
    assert (facts.key, facts.kind, facts.parent) == ("a", Kind.ACTIVE, None)
    assert snapshotter.usage("a").size_bytes == 0
    assert os.listdir(snapshotter.layer("a").path) == []


def a_key_is_taken_once(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "name", None)
    snapshotter.prepare("key", None)
    for taken in ("key", "name"):
        for make in (snapshotter.prepare, snapshotter.view):
            with pytest.raises(SnapshotExistsError) as caught:
                make(taken, None)
            assert caught.value.key == taken
    assert len(list(snapshotter.walk())) == 2


def an_unknown_key_is_named(snapshotter: Snapshotter) -> None:
    calls: list[Callable[[str], object]] = [
        snapshotter.mounts,
        snapshotter.layer,
        snapshotter.stat,
        snapshotter.usage,
        snapshotter.remove,
        lambda key: snapshotter.commit(key, "name"),
        lambda key: snapshotter.prepare("new", key),
    ]
    for call in calls:
        with pytest.raises(SnapshotNotFoundError, match="snapshot nope does not exist"):
            call("nope")
    assert list(snapshotter.walk()) == []


def commit_renames_and_freezes(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "name", None, file="x")
    assert snapshotter.stat("name").kind is Kind.COMMITTED
    with pytest.raises(SnapshotNotFoundError):
        snapshotter.stat("making-name")
    with pytest.raises(SnapshotStateError):
        snapshotter.mounts("name")
    with pytest.raises(SnapshotStateError):
        snapshotter.commit("name", "other")


def a_taken_name_leaves_the_active_one(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "name", None)
    snapshotter.prepare("key", None)
    with pytest.raises(SnapshotExistsError):
        snapshotter.commit("key", "name")
    assert snapshotter.stat("key").kind is Kind.ACTIVE


def only_committed_ones_are_parents(snapshotter: Snapshotter) -> None:
    snapshotter.prepare("key", None)
    with pytest.raises(SnapshotStateError):
        snapshotter.prepare("child", "key")
    with pytest.raises(SnapshotNotFoundError):
        snapshotter.stat("child")


def parents_cannot_be_removed(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "base", None)
    snapshotter.prepare("child", "base")
    with pytest.raises(SnapshotInUseError) as caught:
        snapshotter.remove("base")
    assert caught.value.key == "base"
    snapshotter.remove("child")
    snapshotter.remove("base")
    assert list(snapshotter.walk()) == []


def a_removed_key_can_be_used_again(snapshotter: Snapshotter) -> None:
    snapshotter.prepare("key", None)
    write(snapshotter, "key", old="x")
    snapshotter.remove("key")
    snapshotter.prepare("key", None)
    assert os.listdir(snapshotter.layer("key").path) == []


def layers_are_stacked_nearest_first(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "one", None, one="1")
    committed(snapshotter, "two", "one", two="2")
    snapshotter.prepare("top", "two")
    layer = snapshotter.layer("top")
    assert [os.listdir(path) for path in layer.lowers] == [["two"], ["one"]]
    assert snapshotter.stat("top").parent == "two"


def one_made_alone_can_be_put_on_another(snapshotter: Snapshotter) -> None:
    snapshotter.prepare("upper", None)
    write(snapshotter, "upper", two="2")
    with pytest.raises(SnapshotNotFoundError):
        snapshotter.commit("upper", "two", parent="one")
    committed(snapshotter, "one", None, one="1")
    snapshotter.commit("upper", "two", parent="one")
    assert snapshotter.stat("two").parent == "one"
    snapshotter.prepare("top", "two")
    assert [os.listdir(path) for path in snapshotter.layer("top").lowers] == [["two"], ["one"]]
    assert [one.key for one in snapshotter.walk()] == ["one", "two", "top"]
    with pytest.raises(SnapshotStateError):
        snapshotter.commit("top", "name", parent="one")
    with pytest.raises(SnapshotInUseError):
        snapshotter.remove("one")


def siblings_share_nothing_but_their_parent(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "base", None, file="x")
    for key in ("a", "b"):
        snapshotter.prepare(key, "base")
        write(snapshotter, key, **{key: key})
    assert os.listdir(snapshotter.layer("a").path) == ["a"]
    assert snapshotter.layer("a").lowers == snapshotter.layer("b").lowers


def usage_counts_each_inode_once_and_parents_not(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "base", None, file="x" * 1000)
    snapshotter.prepare("key", "base")
    write(snapshotter, "key", file="y" * 300)
    path = snapshotter.layer("key").path
    os.link(f"{path}/file", f"{path}/again")
    os.mkdir(f"{path}/directory")
    usage = snapshotter.usage("key")
    assert (usage.size_bytes, usage.inodes) == (300, 2)
    assert snapshotter.usage("base").size_bytes == 1000
    assert snapshotter.usage("base") == snapshotter.usage("base")


def walk_has_parents_before_children(snapshotter: Snapshotter) -> None:
    committed(snapshotter, "one", None)
    snapshotter.prepare("other", None)
    committed(snapshotter, "two", "one")
    snapshotter.view("view", "two")
    assert [(s.key, s.parent, s.kind) for s in snapshotter.walk()] == [
        ("one", None, Kind.COMMITTED),
        ("other", None, Kind.ACTIVE),
        ("two", "one", Kind.COMMITTED),
        ("view", "two", Kind.VIEW),
    ]


def views_cannot_be_committed(snapshotter: Snapshotter) -> None:
    snapshotter.view("view", None)
    with pytest.raises(SnapshotStateError):
        snapshotter.commit("view", "name")
    assert all("ro" in m.options or m.type == "overlay" for m in snapshotter.mounts("view"))


def a_trimmed_snapshot_keeps_what_was_written(snapshotter: Snapshotter) -> None:
    snapshotter.prepare("base", None)
    snapshotter.commit("base", "name")
    for key in ("empty", "mode", "file"):
        snapshotter.prepare(key, "name")
    os.chmod(snapshotter.layer("mode").path, 0o711)
    os.mkdir(os.path.join(snapshotter.layer("file").path, "kept"))
    for key in ("empty", "mode", "file", "file"):
        snapshotter.trim(key)
        assert snapshotter.planned_mounts(key)
    snapshotter.trim("name")
    modes = {key: os.stat(snapshotter.layer(key).path).st_mode & 0o777 for key in ("empty", "mode")}
    assert modes == {"empty": 0o755, "mode": 0o711}
    assert os.listdir(snapshotter.layer("file").path) == ["kept"]


SNAPSHOTTER_CHECKS: tuple[Check, ...] = (
    a_new_snapshot_is_active_and_empty,
    a_key_is_taken_once,
    an_unknown_key_is_named,
    commit_renames_and_freezes,
    a_taken_name_leaves_the_active_one,
    only_committed_ones_are_parents,
    parents_cannot_be_removed,
    a_removed_key_can_be_used_again,
    layers_are_stacked_nearest_first,
    one_made_alone_can_be_put_on_another,
    siblings_share_nothing_but_their_parent,
    usage_counts_each_inode_once_and_parents_not,
    walk_has_parents_before_children,
    views_cannot_be_committed,
    a_trimmed_snapshot_keeps_what_was_written,
)
