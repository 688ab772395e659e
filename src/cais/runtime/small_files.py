"""Files of the engine that a container may write to, such as /etc/hosts, without filling the host.

A bind of the engine's own file would let a container grow it until the engine's disk is full
(CVE-2020-8557). So a file named in ``files`` of ``cais.json`` is copied at the start, into a file
system in memory that holds a MiB and is the container's alone: charged to its memory limit, gone
with its mount namespace. The parent reads the originals, so that a user namespace, whose root may
not enter the bundle, gets them too.
"""

from __future__ import annotations

import os
import stat

from cais.errors import InvalidArgumentError
from cais.linux import mount
from cais.linux.writing import write_all
from cais.runtime import bind_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.runtime.mounts import MountPlan

KIND = "copy"  # of a MountPlan that was a bind
LIMIT_BYTES = 1 << 20
_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


def load(entries: Sequence[MountPlan], destinations: object) -> None:
    """Read the originals, in the parent; what was a bind at each of ``destinations`` is a copy.

    Raises:
        InvalidArgumentError: ``destinations`` is no list of places where a small file is bound.

    """
    if not isinstance(destinations, list):
        raise InvalidArgumentError("files is not a list")
    binds = {entry.destination: entry for entry in entries if entry.kind == "bind"}
    for destination in destinations:
        entry = binds.get(destination)
        if entry is None:
            raise InvalidArgumentError(f"files: nothing is bound at {destination!r}")
        entry.content = _read(entry.source)
        entry.kind = KIND


def open_trees(mounts: Sequence[MountPlan], place: str | int) -> None:
    """Make the copies, in the child, while it still has the old root.

    Only a mount that is in this namespace can be copied (until Linux 6.15): the file system is
    placed in the old root, with which it goes, and each file of it becomes a mount.

    Args:
        mounts: all of the container.
        place: a directory of the old root that nobody uses any more; a path, or a descriptor
            (borrowed).

    """
    entries = [entry for entry in mounts if entry.kind == KIND]
    if not entries:
        return
    tree_fd = make_copies(entries, place)
    try:
        for entry in entries:
            entry.tree_fd = mount.clone_tree(os.path.basename(entry.destination), dir_fd=tree_fd)
            bind_sources.set_attributes(entry)
    finally:
        os.close(tree_fd)


def make_copies(entries: Sequence[MountPlan], place: str | int) -> int:
    """Mount the file system with the copies, each under the last part of its destination.

    Returns:
        its top directory (owned).

    """
    size = LIMIT_BYTES + sum(len(entry.content[0]) for entry in entries)
    options = (("size", str(size)), ("nr_inodes", str(len(entries) + 1)), ("mode", "0755"))
    tree_fd = mount.new_mount("tmpfs", options, _ATTRIBUTES)
    try:
        if isinstance(place, int):
            mount.place(tree_fd, place)
        else:
            mount.place_at(tree_fd, place)
        for entry in entries:
            _write(tree_fd, os.path.basename(entry.destination), *entry.content)
    except BaseException:
        os.close(tree_fd)
        raise
    return tree_fd


def _read(path: str) -> tuple[bytes, int]:
    """Return a regular file's content and permissions."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgumentError(f"files: {path}: {error.strerror}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        content = file.read(LIMIT_BYTES + 1) if stat.S_ISREG(status.st_mode) else None
    if content is None or len(content) > LIMIT_BYTES:
        raise InvalidArgumentError(f"files: {path}: not a regular file of at most 1 MiB")
    return content, stat.S_IMODE(status.st_mode)


def _write(dir_fd: int, name: str, content: bytes, mode: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)
