"""Reading and writing the small files of a cgroup directory, with errors that say which.

Writes never create a file: a limit whose file is missing is one this kernel does not have.
"""

from __future__ import annotations

import errno
import os

from cais.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class CgroupError(OSError):
    """A step on a cgroup failed. ``errno`` is the kernel's; the text has the file and the value."""

    def __init__(self, code: int, step: str, path: str, value: str = "") -> None:
        operand = f" {value!r}" if value else ""
        super().__init__(code, f"{step}{operand} {path}: {os.strerror(code)}")
        self.step, self.path, self.value = step, path, value


class UnsupportedLimitError(UnsupportedError):
    """The host has no controller, or no file, for a limit that was asked for."""

    def __init__(self, limit: str, reason: str) -> None:
        super().__init__(f"cannot set {limit}: {reason}")
        self.limit = limit


def write(path: str, *values: str) -> None:
    """Write each value in one system call, as every cgroup file wants it.

    Raises:
        CgroupError: ENOENT, the kernel has no such file; others as the controller says.

    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "open", path) from exc
    value = ""
    try:
        for value in values:
            os.write(fd, value.encode())
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "write", path, value) from exc
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return the whole text of a cgroup file, without the last newline.

    Raises:
        CgroupError: ENOENT, no such file or no such group; ENODEV, the group went away.

    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "open", path) from exc
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "read", path) from exc
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="replace").removesuffix("\n")


def find_text(path: str) -> str | None:
    """Return the text of a file, or None where the kernel has no such file or the group is gone."""
    try:
        return read(path)
    except CgroupError as exc:
        if exc.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise


def find_number(path: str) -> int | None:
    """Return the number in a file; None for ``max`` and for a file that is not there."""
    text = find_text(path)
    return int(text) if text and text.lstrip("-").isdecimal() else None


def find_table(path: str) -> dict[str, int]:
    """Return a flat-keyed file (``name number`` a line); lines of another shape are left out."""
    return _table(find_text(path) or "")


def reread_table(fd: int) -> dict[str, int] | None:
    """Return an open flat-keyed file as it is now; None when its group is gone."""
    try:
        return _table(os.pread(fd, 4096, 0).decode(errors="replace"))
    except OSError as exc:
        if exc.errno == errno.ENODEV:
            return None
        raise


def _table(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def make_directory(path: str) -> bool:
    """Make one directory; False when it was there.

    Raises:
        CgroupError: ENOENT, no parent; EACCES and EROFS, not ours to change.

    """
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "mkdir", path) from exc
    return True


def directories(path: str) -> Iterator[str]:
    """Yield ``path`` and every group below it, children first; nothing if it is not there."""
    try:
        with os.scandir(path) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        yield from directories(child)
    yield path
