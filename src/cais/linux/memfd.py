"""Sealed copies: programs and data in memory that nobody can change.

A container that gets hold of the file its first process was started from must find a copy that
cannot be written, not the host's interpreter (CVE-2019-5736).

Spec: memfd_create(2) (MFD_EXEC: Linux 6.3), fcntl(2) "File Sealing".
"""

from __future__ import annotations

import errno
import fcntl
import os

from cais.linux.writing import write_all

_MFD_EXEC = 0x10
_ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_copy(path: str, name: str = "cais") -> int:
    """Copy the file at ``path`` into memory, executable and sealed; the descriptor is owned."""
    source_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source_fd).st_size
        fd = _create(name)
        try:
            offset = 0
            while offset < size:
                offset += _copied(os.sendfile(fd, source_fd, offset, size - offset), path)
            _seal(fd)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(source_fd)
    return fd


def sealed_bytes(data: bytes, name: str = "cais") -> int:
    """Put ``data`` into memory, executable and sealed; the descriptor is owned."""
    fd = _create(name)
    try:
        write_all(fd, data)
        _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_sealed(fd: int) -> bool:
    """Say whether the file carries all four seals; no file system but memory has any."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _ALL_SEALS == _ALL_SEALS
    except OSError:
        return False


def runs_sealed() -> bool:
    """Say whether this process's own program is a sealed copy."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return is_sealed(fd)
    finally:
        os.close(fd)


def library_environment() -> dict[str, str]:
    """Return the environment a copy of this interpreter needs to find a shared libpython.

    A library found relative to the program (``$ORIGIN``) is not found from a copy in memory.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").rpartition(" ")[2]
            if os.path.basename(path).startswith("libpython"):
                return {"LD_LIBRARY_PATH": os.path.dirname(path)}
    return {}


def _create(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: older than 6.3, where every memfd is executable
            raise
    return os.memfd_create(name, flags)


def _seal(fd: int) -> None:
    os.fchmod(fd, 0o555)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _ALL_SEALS)


def _copied(count: int, path: str) -> int:
    if count == 0:
        raise OSError(errno.EIO, f"{path} became shorter while it was copied")
    return count
