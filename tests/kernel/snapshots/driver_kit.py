"""Every storage driver on a file system that it can use, and its roots mounted as runtime does."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from cais.linux import mount
from cais.runtime import root_layers
from cais.runtime.mounts import parse_root_mount
from cais.runtime.root_plan import RootPlan
from cais.snapshots.differences import DifferenceSnapshotter
from cais.snapshots.drivers import open_snapshotter
from cais.snapshots.snapshotter import Mount
from cais.testing.isolation import children, isolated
from cais.testing.peers import installed

DISK_BYTES = 512 << 20
MAKERS = {"btrfs": ("mkfs.btrfs", "-q"), "xfs": ("mkfs.xfs", "-q"), "ext4": ("mkfs.ext4", "-q")}

PLACES = {
    "overlay2": ("overlay2", ""),
    "vfs": ("vfs", ""),
    "vfs on xfs": ("vfs", "xfs"),
    "vfs on overlay": ("vfs", "overlay"),
    "fuse-overlayfs": ("fuse-overlayfs", ""),
    "btrfs": ("btrfs", "btrfs"),
}
"""By the name of a test: a driver, and the file system it is on; "" for that of the tests."""

ALL_PLACES = {
    **PLACES,
    "overlay2 on ext4": ("overlay2", "ext4"),
    "vfs on btrfs": ("vfs", "btrfs"),
    "vfs on ext4": ("vfs", "ext4"),
}

every_driver = pytest.mark.parametrize("place", PLACES)


def kernel_has(kind: str) -> bool:
    names = Path("/proc/filesystems").read_text().split()
    return kind in names


def skip_unless_usable(place: str) -> None:
    """Skip what this kernel or machine cannot do."""
    driver, backing = ALL_PLACES[place]
    if backing and not kernel_has(backing):
        pytest.skip(f"this kernel has no {backing}")
    if driver == "overlay2" and not kernel_has("overlay"):
        pytest.skip("this kernel has no overlayfs")
    if driver == "fuse-overlayfs" and not kernel_has("fuse"):
        pytest.skip("this kernel has no fuse")
    if driver == "fuse-overlayfs":
        installed(driver)
    if backing in MAKERS:
        installed(MAKERS[backing][0])


@contextlib.contextmanager
def in_memory(directory: Path) -> Iterator[None]:
    """Have a tmpfs on the directory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


@contextlib.contextmanager
def disk(directory: Path, kind: str) -> Iterator[Path]:
    """Give a file system of its own, mounted where only this mount namespace sees it."""
    image, place = directory / "disk", directory / "mnt"
    place.mkdir()
    if kind == "overlay":
        for name in ("lower", "upper", "work"):
            (directory / name).mkdir()
        options = ",".join(f"{name}dir={directory}/{name}" for name in ("lower", "upper", "work"))
        subprocess.run(["mount", "-t", kind, "-o", options, "none", place], check=True)
    else:
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run([*MAKERS[kind], image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def on_driver(place: str, directory: Path, body: Callable[[Path], None]) -> None:
    """Run ``body`` with a directory of a file system for the driver; nothing may be left."""
    skip_unless_usable(place)

    def run() -> None:
        backing = ALL_PLACES[place][1]
        with in_memory(directory):  # what is synced there waits for no disk
            if not backing:
                body(directory)
                return
            with disk(directory, backing) as top:
                body(top)

    isolated(run, timeout_s=500)


@contextlib.contextmanager
def opened(place: str, root: Path) -> Iterator[DifferenceSnapshotter]:
    snapshotter = open_snapshotter(root, ALL_PLACES[place][0])
    try:
        yield snapshotter
    finally:
        snapshotter.close()


@contextlib.contextmanager
def mounted(mounts: tuple[Mount, ...], target: Path) -> Iterator[Path]:
    """Mount what a snapshotter described, as the runtime does."""
    target.mkdir(exist_ok=True)
    plan = RootPlan(str(target.parent))
    plan.layers = [parse_root_mount(asdict(each)) for each in mounts]
    before = set(children())
    root_layers.open_layers(plan)
    servers = set(children()) - before
    mount.place_at(plan.layers[0].tree_fd, str(target))
    os.close(plan.layers[0].tree_fd)
    try:
        yield target
    finally:
        mount.unmount(str(target))
        for pid in servers:  # they end by themselves
            os.waitpid(pid, 0)


def layer(
    snapshotter: DifferenceSnapshotter, name: str, parent: str | None, fill: Callable[[Path], None]
) -> None:
    """Commit a layer that ``fill`` wrote."""
    snapshotter.prepare(f"making {name}", parent)
    fill(Path(snapshotter.layer(f"making {name}").path))
    snapshotter.commit(f"making {name}", name)
