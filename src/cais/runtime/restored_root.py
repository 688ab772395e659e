"""The root and the files of a container that CRIU restores, where CRIU finds them.

CRIU wants a root that is mounted, by path and nobody else's, and a path for each mount whose files
come from outside. They are made in a mount namespace of this process and what it makes, so that
the host's mount table never shows them, below the container's directory:

    <directory>/criu-root    the bundle's root directory, or the layers of its ``cais.json``
    <directory>/criu-files   in memory: a copy of each file that ``cais.json`` has in ``files``
"""

from __future__ import annotations

import os

from cais.linux import mount, namespaces
from cais.runtime import apart, placement, root_layers, small_files
from cais.runtime.bundles import load_extras
from cais.runtime.mounts import parse_mount, parse_root_mount
from cais.runtime.root_plan import RootPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cais.spec.runtime import Config


class RestoredRoot:
    """``path`` is the root's, ``copies`` has the copy for a mount's destination; a context."""

    def __init__(self, directory: str, bundle: str, config: Config) -> None:
        """Make both; this process leaves its mount namespace for good.

        Args:
            directory: the container's own.
            bundle: where its documents and its root are.
            config: the former.

        Raises:
            CaisError: the documents are wrong.
            OSError: a mount failed.

        """
        self.path = f"{directory}/criu-root"
        self.copies: dict[str, str] = {}
        self._files = f"{directory}/criu-files"
        self._mounted: list[str] = []
        namespaces.unshare(namespaces.CLONE_NEWNS)
        apart.keep_mounts_here(directory)
        extras = load_extras(bundle)
        try:
            self._mount_root(bundle, config, extras)
            if extras.get("files"):
                self._copy_files(bundle, config, extras["files"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RestoredRoot:  # noqa: PYI034 - Self would import typing
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take away what was made, which the restored processes keep; idempotent."""
        for place in self._mounted:
            mount.unmount(place, detach=True)
        self._mounted.clear()
        for place in (self.path, self._files):
            if os.path.isdir(place):
                os.rmdir(place)

    def _mount_root(self, bundle: str, config: Config, extras: Mapping[str, Any]) -> None:
        os.mkdir(self.path, 0o700)
        plan = RootPlan(bundle)
        plan.path = root_of(config, bundle)
        plan.layers = [parse_root_mount(entry) for entry in extras.get("rootfs") or ()]
        root_layers.open_layers(plan)
        first, *others = plan.layers
        mount.place_at(first.tree_fd, self.path)
        self._mounted.append(self.path)
        root_fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for layer in others:
            placement.place(layer, root_fd)
        for fd in (root_fd, *(layer.tree_fd for layer in plan.layers)):
            os.close(fd)

    def _copy_files(self, bundle: str, config: Config, destinations: object) -> None:
        os.mkdir(self._files, 0o700)
        mounts = [parse_mount(entry, bundle) for entry in config.get("mounts", ())]
        small_files.load(mounts, destinations)
        copied = [entry for entry in mounts if entry.kind == small_files.KIND]
        os.close(small_files.make_copies(copied, self._files))
        self._mounted.append(self._files)
        for entry in copied:
            name = os.path.basename(entry.destination)
            self.copies[entry.destination] = f"{self._files}/{name}"


def root_of(config: Config, bundle: str) -> str:
    """Return the directory the document names as the root."""
    return os.path.join(bundle, config.get("root", {}).get("path", "rootfs"))
