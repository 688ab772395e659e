"""Placing mounts below the container's root, on descriptors that openat2 found there.

No path is looked up twice, none leads out of the root, and what the engine itself relies on
(/proc, the root) cannot be covered or forged through a link of the image.
"""

from __future__ import annotations

import errno
import os

from cais.linux import mount, paths
from cais.linux.syscalls import KernelError
from cais.runtime import copy_up
from cais.runtime.mounts import PROC_TARGETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.runtime.mounts import MountPlan

_BASE = ("/proc", "/sys", "/dev")  # never through a link of the image (CVE-2019-19921)


def place(entry: MountPlan, root_fd: int) -> None:
    """Attach ``entry.tree_fd`` at its destination, made if it is missing."""
    if entry.kind == "remount":
        _change_existing(entry, root_fd)
        return
    target_fd = _open_target(entry, root_fd)
    try:
        _check_target(entry, target_fd, root_fd)
        if entry.copies_up:
            copy_up.copy_tree(target_fd, entry.tree_fd)
            mount.set_attributes(entry.tree_fd, set_bits=entry.set | entry.deep_set)
        mount.place(entry.tree_fd, target_fd)
    finally:
        os.close(target_fd)


def base_directory(root_fd: int, path: str) -> int:
    """Open a top directory, made if it is missing; a link of the image with its name is refused."""
    rules = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_SYMLINKS
    try:
        return paths.open_at(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=rules)
    except KernelError as error:
        if error.errno == errno.ELOOP:
            text = "it must not be a symbolic link"
            raise KernelError(errno.ELOOP, f"open {path}", text) from None
        if error.errno != errno.ENOENT:
            raise
    os.mkdir(path[1:], 0o755, dir_fd=root_fd)
    return paths.open_at(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=rules)


def existing(root_fd: int, path: str) -> Iterator[int]:
    """Yield the descriptor of ``path`` if it is there; it is closed afterwards."""
    try:
        target_fd = paths.open_in_root(root_fd, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise
    try:
        yield target_fd
    finally:
        os.close(target_fd)


def place_and_close(tree_fd: int, target_fd: int) -> None:
    """Attach a mount and let go of it."""
    try:
        mount.place(tree_fd, target_fd)
    finally:
        os.close(tree_fd)


def _open_target(entry: MountPlan, root_fd: int) -> int:
    if not paths.is_directory(entry.tree_fd):
        return _file_target(entry, root_fd)
    if entry.destination in _BASE:
        return base_directory(root_fd, entry.destination)
    if entry.kind == "tmpfs" and not entry.has_mode:
        return _tmpfs_target(entry, root_fd)
    return paths.ensure_directory(root_fd, entry.destination)


def _file_target(entry: MountPlan, root_fd: int) -> int:
    """Open what a file is to be mounted on: the kernel only says EINVAL about a directory."""
    target_fd = paths.ensure_file(root_fd, entry.destination)
    if paths.is_directory(target_fd):
        os.close(target_fd)
        step = f"mount src={entry.source}, dst={entry.destination}"
        raise KernelError(errno.ENOTDIR, step)
    return target_fd


def _tmpfs_target(entry: MountPlan, root_fd: int) -> int:
    """Open the directory a tmpfs covers, which has the mode of that directory, as with runc."""
    for target_fd in existing(root_fd, entry.destination):
        if paths.is_directory(target_fd):
            os.chmod(".", os.fstat(target_fd).st_mode & 0o7777, dir_fd=entry.tree_fd)
            return os.dup(target_fd)
    return paths.ensure_directory(root_fd, entry.destination)


def _change_existing(entry: MountPlan, root_fd: int) -> None:
    """Change a mount that is there already (option ``remount``)."""
    target_fd = paths.open_in_root(root_fd, entry.destination)
    try:
        _check_target(entry, target_fd, root_fd)
        if entry.options:
            mount.reconfigure(target_fd, entry.options)
        if entry.set or entry.clear:
            mount.set_attributes(target_fd, set_bits=entry.set, clear_bits=entry.clear)
        if entry.deep_set or entry.deep_clear:
            mount.set_attributes(
                target_fd, set_bits=entry.deep_set, clear_bits=entry.deep_clear, recursive=True
            )
        for kind, recursive in entry.propagation:
            mount.set_attributes(target_fd, propagation=kind, recursive=recursive)
    finally:
        os.close(target_fd)


def _check_target(entry: MountPlan, target_fd: int, root_fd: int) -> None:
    """Refuse what a link of the image led into procfs or to the root, and a /proc that is none.

    A mount over the root would be the root of every exec: without /proc, and without its masks.
    """
    if os.path.samestat(os.fstat(target_fd), os.fstat(root_fd)):
        raise KernelError(errno.EPERM, "mount", "the destination is the root itself")
    if paths.filesystem_type(target_fd) == paths.PROC_SUPER_MAGIC:
        if entry.destination not in PROC_TARGETS:
            raise KernelError(errno.EPERM, "mount", "the destination is inside /proc")
    elif (
        entry.destination == "/proc"
        and paths.filesystem_type(entry.tree_fd) != paths.PROC_SUPER_MAGIC
    ):
        raise KernelError(errno.EPERM, "mount", "only a proc file system can be /proc")
