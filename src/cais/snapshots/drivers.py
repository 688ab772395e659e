"""Which snapshotter a data root gets: the one asked for, the one it had, or the best that works.

As in Docker, a data root keeps its driver. Unlike there, another one may be asked for as long as
no container exists: layers are the same for all of them.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from cais.database import has_database
from cais.errors import ConflictError, UnsupportedError
from cais.linux import mount
from cais.snapshots.backing import describe_backing
from cais.snapshots.overlay import FuseOverlaySnapshotter, OverlaySnapshotter
from cais.snapshots.rows import Rows
from cais.snapshots.snapshotter import STACKING_DRIVERS, Kind
from cais.snapshots.subvolumes import BtrfsSnapshotter
from cais.snapshots.trees import NativeCopySnapshotter

if TYPE_CHECKING:
    from pathlib import Path

    from cais.snapshots.differences import DifferenceSnapshotter

log = logging.getLogger(__name__)

DRIVERS: dict[str, type[DifferenceSnapshotter]] = {
    kind.driver: kind
    for kind in (
        OverlaySnapshotter,
        FuseOverlaySnapshotter,
        BtrfsSnapshotter,
        NativeCopySnapshotter,
    )
}
"""In the order in which they are tried."""

FUSE_PROGRAM = "fuse-overlayfs"
_UNSUPPORTED_BACKING = "backing file system is unsupported for this graph driver"
_NOT_SUPPORTED = "driver not supported"


def open_snapshotter(root: Path, wanted: str = "") -> DifferenceSnapshotter:
    """Open the snapshotter of a data root.

    Args:
        root: the directory of its snapshots; made if absent.
        wanted: the name of a driver; "" for the one that was used before, or the first that works.

    Raises:
        UnsupportedError: there is no such driver, or it does not work here, and why.
        ConflictError: the data root has containers of another driver, or layers that this one
            cannot read.

    """
    if wanted and wanted not in DRIVERS:
        raise UnsupportedError(f"error initializing graphdriver: {_NOT_SUPPORTED}: {wanted}")
    os.makedirs(root, 0o700, exist_ok=True)
    previous, has_containers, has_stand_ins = _previous(root)
    if wanted and has_containers and previous != wanted:
        raise ConflictError(
            f"error initializing graphdriver: {root} has containers of the storage driver "
            f"{previous!r}: remove them first, or start with --storage-driver {previous}"
        )
    name = wanted or previous
    was_moved = has_stand_ins and describe_backing(os.fspath(root)) != "overlayfs"
    if was_moved and name in STACKING_DRIVERS:
        raise ConflictError(
            f"error initializing graphdriver: the layers in {root} were unpacked on an overlay, in "
            f"a form that {name} cannot read: remove the images first, or start with "
            f"--storage-driver {previous}"
        )
    if name:
        return _open(root, name)
    for name in DRIVERS:
        try:
            return _open(root, name)
        except UnsupportedError as exc:
            log.warning("storage driver %s: %s", name, exc)
    raise UnsupportedError("error initializing graphdriver: no supported storage driver found")


def _open(root: Path, name: str) -> DifferenceSnapshotter:
    try:
        _probe(os.fspath(root), name)
        return DRIVERS[name](root)
    except UnsupportedError as exc:
        raise UnsupportedError(f"error initializing graphdriver: {exc}: {name}") from exc


def _previous(root: Path) -> tuple[str, bool, bool]:
    """Return a data root's driver, and whether it has more than layers, and any from an overlay."""
    if not has_database(root / "snapshots.db"):
        return "", False, False
    rows = Rows(root / "snapshots.db")
    try:
        known = list(rows.walk())
        driver = rows.driver or (OverlaySnapshotter.driver if known else "")
        has_containers = any(row.kind is not Kind.COMMITTED for row in known)
        return driver, has_containers, rows.have_stand_ins and bool(known)
    finally:
        rows.close()


def _probe(root: str, name: str) -> None:
    """UnsupportedError unless the driver works on this kernel and below ``root``."""
    if name == OverlaySnapshotter.driver:
        _probe_overlay(root)
    elif name == FuseOverlaySnapshotter.driver:
        if shutil.which(FUSE_PROGRAM) is None:
            raise UnsupportedError(f"{_NOT_SUPPORTED}, {FUSE_PROGRAM} is not installed")
        if not os.path.exists("/dev/fuse"):
            raise UnsupportedError(f"{_NOT_SUPPORTED}, there is no /dev/fuse")
        if describe_backing(root) == "overlayfs":  # it hides names in a way of its own there
            raise UnsupportedError(_UNSUPPORTED_BACKING)


def _probe_overlay(root: str) -> None:
    """Make an overlay that nobody sees."""
    place = tempfile.mkdtemp(prefix="probe-", dir=root)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)  # its path may be too long
    try:
        for name in ("lower", "upper", "work"):
            os.mkdir(name, dir_fd=fd)
        options = [(f"{name}dir", f"/proc/self/fd/{fd}/{name}") for name in os.listdir(fd)]
        os.close(mount.new_mount("overlay", options))
    except OSError as exc:
        raise UnsupportedError(f"{_UNSUPPORTED_BACKING}, {exc}") from exc
    finally:
        os.close(fd)
        shutil.rmtree(place, ignore_errors=True)
