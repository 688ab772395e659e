"""Snapshots for btrfs: a container's root is a snapshot of its image's tree.

On disk, besides what ``trees`` has: ``trees/<number>`` of the layer that containers stand on, a
subvolume that is made for the first of them and shared by all. Making it shares the extents of the
layers' files. No quota is needed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cais.errors import UnsupportedError
from cais.linux import btrfs
from cais.snapshots.trees import TreeSnapshotter

if TYPE_CHECKING:
    from pathlib import Path

    from cais.snapshots.rows import Row

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BtrfsSnapshotter(TreeSnapshotter):
    """The file system makes the copies."""

    driver = "btrfs"

    def __init__(self, root: Path) -> None:
        """Open the store, as ``DifferenceSnapshotter``.

        Raises:
            UnsupportedError: the data root is not on btrfs.

        """
        os.makedirs(root, 0o700, exist_ok=True)
        fd = os.open(root, _DIRECTORY)
        try:
            if not btrfs.is_btrfs(fd):
                raise UnsupportedError("prerequisites for driver not satisfied (wrong filesystem?)")
        finally:
            os.close(fd)
        super().__init__(root)

    def status(self) -> list[tuple[str, str]]:
        """See ``Snapshotter.status``."""
        return [("Btrfs", "")]

    def _make_tree(self, path: str, row: Row) -> None:
        sources = self._sources(row)
        if sources[0] == row.number:  # rare: written to before it was ever mounted
            self._make_subvolume(path)
            self._fill(path, sources)
            return
        image_fd = os.open(self._image_tree(sources[0]), _DIRECTORY)
        trees_fd = os.open(os.path.dirname(path), _DIRECTORY)
        try:
            btrfs.create_snapshot(image_fd, trees_fd, os.path.basename(path))
        finally:
            os.close(trees_fd)
            os.close(image_fd)

    def _image_tree(self, number: int) -> str:
        """Return the tree of a layer and all below it, making it if nobody has."""
        path = self._tree(number)
        if not os.path.isdir(path):
            complete = self._new_tree()
            self._make_subvolume(complete)
            self._fill(complete, self._rows.lineage(number))
            self._publish(complete, path)
        return path

    def _make_subvolume(self, path: str) -> None:
        directory_fd = os.open(os.path.dirname(path), _DIRECTORY)
        try:
            btrfs.create_subvolume(directory_fd, os.path.basename(path))
        finally:
            os.close(directory_fd)

    def _keeps(self, place: str, row: Row) -> bool:
        return place == "trees" and btrfs.is_subvolume_at(self._tree(row.number))
