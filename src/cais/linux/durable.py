"""Files that are whole or absent after a power cut.

fsync before the rename, or the name may come back with an empty file; fsync of the directory
after it, or the old name may come back (both were seen on ext4).

Spec: fsync(2), rename(2).
"""

from __future__ import annotations

import os

from cais.linux.writing import write_all


def write_durably(path: str | os.PathLike[str], content: bytes, *, mode: int) -> None:
    """Replace the file at ``path``; durable when this returns.

    A failure leaves the old file. What a crash leaves beside it is named ``.<name>.new`` and is
    overwritten by the next call.

    Blocks: for the disk.
    """
    replace_file(path, content, mode=mode, sync=True)
    sync_directory(os.path.dirname(os.fspath(path)) or ".")


def replace_file(
    path: str | os.PathLike[str], content: bytes, *, mode: int, sync: bool = False
) -> None:
    """Put a new file, a new inode, in the place of the one at ``path``.

    Args:
        mode: of the new file, whatever the umask.
        sync: the content is on disk before the name changes.

    """
    directory, name = os.path.split(os.fspath(path))
    passing = os.path.join(directory, f".{name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(passing, flags, mode)
        try:
            write_all(fd, content)
            os.fchmod(fd, mode)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(passing, path)
    except BaseException:
        _unlink_if_there(passing)
        raise


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink_if_there(path: str) -> None:
    try:  # contextlib costs an import the shim does not have
        os.unlink(path)
    except FileNotFoundError:
        return
