"""Snapshots for overlayfs: the differences are stacked by mount options.

``trim`` removes the scratch directory, and the difference if there is none: a thousand containers
that do not run cost little more than one.

Spec: Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.snapshots.backing import describe_backing
from cais.snapshots.differences import DifferenceSnapshotter
from cais.snapshots.snapshotter import Kind, Layer, Mount

if TYPE_CHECKING:
    from pathlib import Path

    from cais.snapshots.rows import Row

_FEATURES_OFF = ("index=off", "metacopy=off", "redirect_dir=nofollow")
"""A trusted.overlay.* attribute that slipped into a layer must not name a file to show."""


class OverlaySnapshotter(DifferenceSnapshotter):
    """The kernel stacks the directories."""

    driver = "overlay2"
    _kind = "overlay"
    _fixed_options: tuple[str, ...] = _FEATURES_OFF

    def __init__(self, root: Path) -> None:
        """Open the store, as ``DifferenceSnapshotter``.

        Raises:
            InvalidArgumentError: the path cannot stand in overlayfs's options.

        """
        if any(mark in os.fspath(root) for mark in ":,\\"):
            raise InvalidArgumentError(
                f"data root {os.fspath(root)!r}: overlayfs options cannot hold a colon, a comma "
                "or a backslash"
            )
        super().__init__(root)

    def status(self) -> list[tuple[str, str]]:
        """See ``Snapshotter.status``."""
        return [
            ("Backing Filesystem", describe_backing(self._root)),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        ]

    def _joined(self, row: Row) -> Mount:
        own, *lowers = self._rows.lineage(row.number)
        options = [f"lowerdir={':'.join(map(self._difference, lowers))}"]
        if row.kind is Kind.ACTIVE:
            options += [f"upperdir={self._difference(own)}", f"workdir={self._root}/work/{own}"]
        return Mount(self._kind, self._kind, options=(*options, *self._fixed_options))

    def _make_joined(self, row: Row, *, ephemeral: bool) -> Mount:
        joined = self._joined(row)
        if row.kind is not Kind.ACTIVE:
            return joined
        with self._exhausted(self._difference(row.number)), contextlib.suppress(FileExistsError):
            os.mkdir(f"{self._root}/work/{row.number}", 0o700)
        self._ensure_difference(row)
        return self._unsynced(row, joined) if ephemeral else joined

    def _trim(self, row: Row) -> None:
        self._discard_at("work", row.number)
        path = self._difference(row.number)
        with contextlib.suppress(OSError):  # not there, or not empty: then it stays
            if self._has_root_attributes(row.parent, path):
                os.rmdir(path)

    def _unsynced(self, row: Row, joined: Mount) -> Mount:
        """Return the mount without its sync of the whole disk at each unmount."""
        mark = f"{self._root}/work/{row.number}/work/incompat"  # refuses a second mount
        shutil.rmtree(mark, ignore_errors=True)
        return replace(joined, options=(*joined.options, "volatile"))


class FuseOverlaySnapshotter(OverlaySnapshotter):
    """A process for each mount stacks the directories, where the kernel cannot.

    It puts an empty file into each directory it makes, which says once more that it is opaque. No
    container of it can have a file of that name, as with Docker, so nothing is lost if it is never
    shown. With the other drivers it is a file as any other, but for a layer, which cannot hold it.
    """

    driver = "fuse-overlayfs"
    _kind = "fuse-overlayfs"
    _fixed_options = ()
    _mark = ".wh..wh..opq"

    def status(self) -> list[tuple[str, str]]:
        """See ``Snapshotter.status``: nothing, as Docker."""
        return []

    def layer(self, key: str) -> Layer:
        """See ``Snapshotter.layer``."""
        found = super().layer(key)
        return replace(found, mark=self._mark) if found.lowers else found  # else it is not stacked
