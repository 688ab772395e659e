"""One inotify instance: which watched directories saw a change.

Spec: inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

IN_MODIFY = 0x2
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000

_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class Inotify:
    """A non-blocking inotify descriptor; ``close`` it.

    Raises:
        OSError: EMFILE, the user's limit of instances (fs.inotify.max_user_instances).

    """

    def __init__(self) -> None:
        self.fd: int = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def fileno(self) -> int:
        """Return the descriptor; readable when ``read`` has something."""
        return self.fd

    def watch_directory(self, path: str) -> int:
        """Watch the files of a directory being written, created or renamed into place.

        The same directory gives the same number again.

        Raises:
            OSError: ENOENT, ENOTDIR; ENOSPC, the user's limit of watches.

        """
        mask = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR
        result = _libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        return _checked(result, f"inotify_add_watch {path}")

    def forget(self, watch: int) -> None:
        """Stop watching; no error if the directory is gone."""
        _libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> AbstractSet[int] | None:
        """Return the watches that saw something; None: events were lost, look at all."""
        seen: set[int] = set()
        while True:
            try:
                block = os.read(self.fd, 65536)
            except BlockingIOError:
                return seen
            offset = 0
            while offset < len(block):
                watch, mask, _cookie, name_bytes = _HEADER.unpack_from(block, offset)
                offset += _HEADER.size + name_bytes
                if mask & IN_Q_OVERFLOW:
                    return None
                if not mask & IN_IGNORED:
                    seen.add(watch)

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _checked(result: int, step: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{step}: {os.strerror(code)}")
    return result
