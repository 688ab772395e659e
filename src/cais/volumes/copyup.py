"""Fill a new volume with what the image has at its destination, without mounting anything.

The merged view of a container's root exists only inside a mount namespace. What lies at one path
can as well be read from the layers (``snapshots.merged``), which never change.

The copy is made beside the volume and moved in when it is complete and on disk: a crash leaves a
volume that is still empty, or full.
"""

import os
from collections.abc import Sequence

from cais.linux.durable import sync_directory
from cais.linux.filesystem import remove_tree, sync_filesystem
from cais.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_at
from cais.snapshots.inodes import OwnerOf, as_they_are, copy_attributes
from cais.snapshots.merged import Entry, MergedTree, open_stack
from cais.snapshots.tree_copy import copy_tree
from cais.spec.identities import IdentityMaps

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_STAGING = ".copy-up"


def copy_merged(
    lower_dirs: Sequence[str],
    path_inside: str,
    target: str,
    identities: IdentityMaps | None = None,
) -> bool:
    """Copy the merged view of ``path_inside`` over overlay layers into an empty directory.

    Owners, modes, times, extended attributes, hard links, devices and FIFOs are kept; sockets
    are left out. The directory itself takes owner and mode of its source.

    Args:
        lower_dirs: layer directories, the topmost first.
        path_inside: absolute path in the image; symlinks resolve inside the merged tree.
        target: the volume's ``_data``; untouched unless empty.
        identities: who the owners are on the host; None: the same.

    Returns:
        Whether something was copied: False if ``target`` is not empty or the image has no
        directory there.

    Raises:
        InvalidArgumentError: ``path_inside`` runs in a circle of symbolic links; an owner is
            nobody on the host.
        OSError: reading or writing failed; ``target`` is as it was, but for a failure of the
            last step, which may leave part of the names moved in.

    Blocks: as long as the copy and its way to the disk take.

    """
    if not lower_dirs or os.listdir(target):
        return False
    with open_stack(lower_dirs) as tree:
        source = tree.find(path_inside)
        if source is None or not source.is_directory:
            return False
        _fill(tree, source, target, identities.outside if identities else as_they_are)
    return True


def _fill(tree: MergedTree, source: Entry, target: str, owner_of: OwnerOf) -> None:
    volume_fd = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        remove_tree(volume_fd, _STAGING)
        os.mkdir(_STAGING, 0o700, dir_fd=volume_fd)
        staging_fd = _open_directory(volume_fd, _STAGING)
        try:
            copy_tree(tree, source, staging_fd, with_sockets=False, owner_of=owner_of)
            sync_filesystem(staging_fd)
            for name in os.listdir(staging_fd):
                os.rename(name, name, src_dir_fd=staging_fd, dst_dir_fd=target_fd)
        finally:
            os.close(staging_fd)
        with tree.opened(source) as source_fds:
            copy_attributes(source_fds[0], target_fd, source.status, owner_of)
    finally:
        remove_tree(volume_fd, _STAGING)
        os.close(target_fd)
        os.close(volume_fd)
    sync_directory(target)


def _open_directory(root_fd: int, path: str) -> int:
    path = path.lstrip("/") or "."
    return open_at(root_fd, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_STRICT)
