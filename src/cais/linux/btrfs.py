"""Subvolumes of btrfs: made, cloned as snapshots and deleted with all that lie below them.

Spec: btrfs-ioctl(2), linux/btrfs.h, linux/btrfs_tree.h.
"""

from __future__ import annotations

import fcntl
import os
import struct

from cais.linux.paths import filesystem_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SUPER_MAGIC = 0x9123683E
_SUBVOLUME_INODE = 256
_SUBVOLUME_READ_ONLY = 1 << 1
_SUBVOLUME_BY_ID = 1 << 4

_SUBVOL_CREATE = 0x5000940E  # struct btrfs_ioctl_vol_args
_SNAP_CREATE_V2 = 0x50009417  # struct btrfs_ioctl_vol_args_v2
_SNAP_DESTROY_V2 = 0x5000943F
_INO_LOOKUP = 0xD0009412
_TREE_SEARCH = 0xD0009411

_ARGS = struct.Struct("=q4088s")  # fd, name
_ARGS_V2 = struct.Struct("=qQQ32s4040s")  # fd, transid, flags, unused, name or id
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_ITEM = struct.Struct("=QQQII")  # transid, objectid, offset, type, length
_SEARCH_BYTES = 4096
_ROOT_TREE = 1
_ROOT_REF_KEY = 156
_MOST = (1 << 64) - 1
_ITEMS_AT_ONCE = 1000


def is_btrfs(fd: int) -> bool:
    """Say whether ``fd`` lies on btrfs."""
    return filesystem_type(fd) == SUPER_MAGIC


def is_subvolume(fd: int) -> bool:
    """Say whether the directory ``fd`` is the top of a subvolume."""
    return os.fstat(fd).st_ino == _SUBVOLUME_INODE and is_btrfs(fd)


def is_subvolume_at(path: str) -> bool:
    """Say whether there is a subvolume at ``path``; a symbolic link is none."""
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_subvolume(fd)
    finally:
        os.close(fd)


def create_subvolume(directory_fd: int, name: str) -> None:
    """Make an empty subvolume, mode 0755 less the umask."""
    _call(directory_fd, _SUBVOL_CREATE, _ARGS.pack(0, os.fsencode(name)))


def create_snapshot(
    source_fd: int, directory_fd: int, name: str, *, read_only: bool = False
) -> None:
    """Make a subvolume with the content of another one, which shares all of it; durable.

    Args:
        source_fd: the top of a subvolume. Borrowed, as ``directory_fd``.
        directory_fd: on the same file system.
        name: a free one in that directory.
        read_only: nothing in it can be changed.

    Raises:
        OSError: EEXIST; EXDEV, another file system; EINVAL, ``source_fd`` is no subvolume.

    """
    flags = _SUBVOLUME_READ_ONLY if read_only else 0
    arguments = _ARGS_V2.pack(source_fd, 0, flags, b"", os.fsencode(name))
    _call(directory_fd, _SNAP_CREATE_V2, arguments)


def delete_subvolume(fd: int) -> None:
    """Delete the subvolume whose top is ``fd`` and those that were made inside it.

    Whoever has files of it open or mounted keeps them. The space comes back in the background.

    Raises:
        OSError: EPERM, no CAP_SYS_ADMIN; EBUSY, a swap file or something being sent.

    """
    top = _subvolume_id(fd)
    pending = [top]
    found = []
    while pending:
        found.append(pending.pop())
        pending += _children(fd, found[-1])
    for number in reversed(found):  # those inside first
        arguments = _ARGS_V2.pack(0, 0, _SUBVOLUME_BY_ID, b"", struct.pack("=Q", number))
        _call(fd, _SNAP_DESTROY_V2, arguments)


def _subvolume_id(fd: int) -> int:
    answer = _call(fd, _INO_LOOKUP, struct.pack("=QQ4080s", 0, _SUBVOLUME_INODE, b""))
    number: int = struct.unpack_from("=Q", answer)[0]
    return number


def _children(fd: int, number: int) -> Iterator[int]:
    """Yield the ids of the subvolumes directly below one."""
    first = 0
    while True:
        key = (_ROOT_TREE, number, number, first, _MOST, 0, _MOST)
        limits = (_ROOT_REF_KEY, _ROOT_REF_KEY, _ITEMS_AT_ONCE, 0)
        request = _SEARCH_KEY.pack(*key, *limits, 0, 0, 0, 0).ljust(_SEARCH_BYTES, b"\0")
        answer = _call(fd, _TREE_SEARCH, request)
        count: int = _SEARCH_KEY.unpack_from(answer)[9]
        if count == 0:
            return
        position = _SEARCH_KEY.size
        for _ in range(count):
            _, _, child, _, length = _ITEM.unpack_from(answer, position)
            yield child
            position += _ITEM.size + length
            first = child + 1


def _call(fd: int, request: int, argument: bytes) -> bytearray:
    """Call ioctl(2) with 4 KiB, more than ``fcntl.ioctl`` itself copies; return them after."""
    structure = bytearray(argument)
    fcntl.ioctl(fd, request, structure)
    return structure
