"""Root file systems of containers: the image, a layer of mount points, and the container's own.

What the engine mounts into every container needs something to be mounted on. As in Docker those
files and directories are a layer between the image and the container, so that neither changes;
here all containers of an image share it. It is made by the first of them, from the image's layers
as they lie there: nothing is mounted, and a symbolic link of the image's is left as it is and never
followed. What is missing behind such a link the runtime makes in the container's own layer.

The layer's name is the image's chain id with ``INIT_SUFFIX``; the image store removes it with the
image.

Spec: docs/architecture.md 3.4; SECURITY.md A7, A27.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError
from cais.images.layer_imports import commit_layer, import_snapshot
from cais.images.store import INIT_SUFFIX
from cais.snapshots.inodes import copy_attributes
from cais.snapshots.merged import open_stack
from cais.snapshots.snapshotter import SnapshotNotFoundError
from cais.spec.digest import ChainId, Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cais.engine.core import Core
    from cais.images.store import ImageStore
    from cais.snapshots.merged import MergedTree

_ETC = "etc"
_ATTEMPTS = 3  # the layer may go with other unused ones before it is stood on


def prepare_root(core: Core, container_id: str, chain_id: str) -> None:
    """Make a container's snapshot on its image. Blocks: for the disk.

    Raises:
        CaisError: as ``Snapshotter.prepare``; SnapshotNotFoundError: the image is gone.

    """
    if not chain_id:
        core.snapshots.prepare(container_id, None)
        return
    for _ in range(_ATTEMPTS):
        try:
            core.snapshots.prepare(container_id, chain_id + INIT_SUFFIX)
        except SnapshotNotFoundError:
            try:
                _make_init_layer(core.images, chain_id)
            except ExhaustedError:
                break  # the deepest of images have no room for one more layer
        except ExhaustedError:
            break
        else:
            return
    core.snapshots.prepare(container_id, chain_id)


def image_layers(core: Core, chain_id: str) -> Sequence[str]:
    """Return the directories an image is made of, the topmost first."""
    if not chain_id:
        return ()
    layer = core.snapshots.layer(chain_id)
    return (layer.path, *layer.lowers)


def _make_init_layer(images: ImageStore, chain_id: str) -> None:
    with (
        images.content.leases.open() as lease,
        import_snapshot(images, lease, ChainId(Digest(chain_id))) as key,
    ):
        layer = images.snapshotter.layer(key)
        with _opened(layer.path) as target_fd, open_stack(layer.lowers) as tree:
            _fill(tree, target_fd)
        commit_layer(images, key, ChainId(Digest(chain_id + INIT_SUFFIX)))


def _fill(tree: MergedTree, target_fd: int) -> None:
    """Make what the image does not have; what it has, of whatever kind, stays as it is."""
    for name, make in _TOP.items():
        if tree.lookup(tree.root(), name) is None:
            make(target_fd, name)
    etc = tree.lookup(tree.root(), _ETC)
    if etc is not None and not etc.is_directory:
        return
    missing = [name for name in _IN_ETC if etc is None or tree.lookup(etc, name) is None]
    if not missing:
        return
    _make_directory(target_fd, _ETC)
    with _opened(_ETC, dir_fd=target_fd) as etc_fd:
        for name in missing:
            _IN_ETC[name](etc_fd, name)
        if etc is not None:  # of directories laid over each other the uppermost one's owner shows
            with tree.opened(etc) as source_fds:
                copy_attributes(source_fds[0], etc_fd, etc.status)


def _make_directory(parent_fd: int, name: str) -> None:
    os.mkdir(name, dir_fd=parent_fd)
    os.chmod(name, 0o755, dir_fd=parent_fd)  # noqa: S103 - as any root's


def _make_file(parent_fd: int, name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=parent_fd)
    os.fchmod(fd, 0o755)
    os.close(fd)


def _link_mounts(parent_fd: int, name: str) -> None:
    os.symlink("/proc/mounts", name, dir_fd=parent_fd)


_TOP: dict[str, Callable[[int, str], None]] = {
    "dev": _make_directory,
    "proc": _make_directory,
    "sys": _make_directory,
    ".dockerenv": _make_file,
}
_IN_ETC: dict[str, Callable[[int, str], None]] = {
    "hosts": _make_file,
    "hostname": _make_file,
    "resolv.conf": _make_file,
    "mtab": _link_mounts,
}


@contextlib.contextmanager
def _opened(path: str, *, dir_fd: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)
