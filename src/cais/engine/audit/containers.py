"""Whether every container has what is its own, and whether all of that kind has a container."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cais.engine.audit.findings import Finding
from cais.images.store import IMPORT_KEY, INIT_SUFFIX
from cais.linux.filesystem import remove_tree
from cais.snapshots.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.engine.audit.data_root import DataRoot, StoredSnapshot

_WHERE = ("", "work", "trees")
"""Below the snapshots: where one of them has directories."""


def check_containers(root: DataRoot) -> Iterator[Finding]:
    """Look for the writable layer and the volumes of each container."""
    known = {each.key: each for each in root.stored_snapshots()}
    for record in root.containers():
        subject = f"container {record.name.removeprefix('/')}"
        own = known.get(record.id)
        if own is None:
            yield Finding(subject, "has lost its writable layer")
        elif own.parent is None and record.parent:
            yield Finding(subject, f"stands on no layer instead of {record.parent}")
        for mount in record.mounts:
            if mount.name and not (root.path / "volumes" / mount.name / "_data").is_dir():
                yield Finding(subject, f"has lost its volume {mount.name}")


def check_unused_snapshots(root: DataRoot) -> Iterator[Finding]:
    """Find what neither an image nor a container needs, the uppermost first."""
    containers = {record.id for record in root.containers()}
    layers = root.layers().keys()
    snapshots = root.stored_snapshots()
    kept: set[int | None] = set()
    for each in reversed(snapshots):
        name = each.key.removesuffix(INIT_SUFFIX)
        is_used = name in (layers if each.is_layer else containers)
        if is_used or each.number in kept:
            kept.add(each.parent)
            continue
        what = "layer" if each.is_layer else "snapshot"
        why = "was never completed" if name.startswith(IMPORT_KEY) else "is nobody's"
        yield Finding(f"{what} {each.key}", why, _snapshot_remover(root, each))
    known = {str(each.number) for each in snapshots}
    for name in _names(root.snapshots):
        if name.isdecimal() and name not in known:
            yield Finding(
                f"directory {root.snapshots / name}",
                "belongs to no snapshot",
                _remover(root.snapshots, name),
            )


def check_unused_directories(root: DataRoot) -> Iterator[Finding]:
    """Find directories of containers that do not exist, and what was on its way out."""
    known = {record.id for record in root.containers()}
    place = root.path / "containers"
    for name in _names(place):
        if name not in known:
            yield Finding(f"directory {place / name}", "is no container's", _remover(place, name))
    trash = root.snapshots / "trash"
    for name in _names(trash):
        yield Finding(f"directory {trash / name}", "was being deleted", _remover(trash, name))


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def _snapshot_remover(root: DataRoot, snapshot: StoredSnapshot) -> Callable[[], str]:
    def remove() -> str:
        rows = Rows(root.snapshots / "snapshots.db")
        try:
            rows.remove(snapshot.key)
        finally:
            rows.close()
        for place in _WHERE:
            _remove(root.snapshots / place, str(snapshot.number))
        return "removed"

    return remove


def _remover(parent: Path, name: str) -> Callable[[], str]:
    def remove() -> str:
        _remove(parent, name)
        return "removed"

    return remove


def _remove(parent: Path, name: str) -> None:
    if not parent.is_dir():
        return
    parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent_fd, name)
    finally:
        os.close(parent_fd)
