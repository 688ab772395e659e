"""Who a process runs as: names resolved from the container's own passwd and group files.

Runs in the child, inside the container's root. Never the C library's resolver, which would load
the container's code (CVE-2019-14271): a plain reader of regular files, bounded in size, that
takes digits as an id and never as a name (CVE-2018-15664's relatives, SECURITY.md A18, A19).
"""

from __future__ import annotations

import errno
import os
import stat

from cais.linux import paths
from cais.linux.credentials import MAX_ID
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE_LIMIT_BYTES = 10 * 1024 * 1024
PASSWD, GROUP = "/etc/passwd", "/etc/group"
_DIGITS = frozenset("0123456789")


class Identity:
    """Numbers for the kernel, and the home directory passwd gives."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def resolve(root_fd: int, user: str, additional: Sequence[str]) -> Identity:
    """Resolve ``name|uid[:group|gid]`` and additional groups as Docker does.

    The groups of the result begin with the primary one, so that a file mode that excludes a
    group cannot be dodged by having it as primary group only (CVE-2022-36109).

    Raises:
        LaunchError: kind ``user``, with Docker's text.

    """
    name, colon, group = user.partition(":")
    identity, entry_name = _find_user(_rows(root_fd, PASSWD, 7), name)
    group_rows = list(_rows(root_fd, GROUP, 4)) if group or entry_name or additional else []
    memberships: list[int] = []
    if colon and group:
        identity.gid = _find_group(group_rows, group)
    elif entry_name:
        memberships = [gid for gid, members in _memberships(group_rows) if entry_name in members]
    extra = [_find_additional(group_rows, item) for item in additional]
    identity.groups = list(dict.fromkeys([identity.gid, *memberships, *extra]))
    return identity


def home_of(root_fd: int, uid: int) -> str:
    """Return the home directory of ``uid`` in the container's passwd, "/" when it has none."""
    for row in _rows(root_fd, PASSWD, 7):
        if _number(row[2]) == uid:
            return row[5] or "/"
    return "/"


def _find_user(rows: Iterator[list[str]], name: str) -> tuple[Identity, str]:
    """Return the identity and, when passwd has it, the name its group memberships are under."""
    uid = _id(name) if _is_typed_number(name) else (0 if not name else None)
    for row in rows:
        found = _number(row[2])
        if (found == uid) if uid is not None else (row[0] == name):
            return Identity(_checked(row[2]), _checked(row[3]), [], row[5] or "/"), row[0]
    if uid is None:
        raise _user_error(f"unable to find user {name}: no matching entries in passwd file")
    return Identity(uid, 0, [], "/"), ""


def _find_group(rows: list[list[str]], name: str) -> int:
    if _is_typed_number(name):
        return _id(name)
    for row in rows:
        if row[0] == name:
            return _checked(row[2])
    raise _user_error(f"unable to find group {name}: no matching entries in group file")


def _find_additional(rows: list[list[str]], name: str) -> int:
    if _is_typed_number(name):
        return _id(name)
    for row in rows:
        if row[0] == name:
            return _checked(row[2])
    raise _user_error(f"Unable to find group {name}: no matching entries in group file")


def _memberships(rows: list[list[str]]) -> Iterator[tuple[int, list[str]]]:
    for row in rows:
        gid = _number(row[2])
        if gid is not None:
            yield gid, row[3].split(",")


def _rows(root_fd: int, path: str, fields: int) -> Iterator[list[str]]:
    """Yield the well-formed lines of a file, split at colons; nothing if it is missing."""
    for line in _read(root_fd, path).split("\n"):
        row = line.strip(" \t\r").split(":")
        if row[0] and len(row) >= 3:
            yield row + [""] * (fields - len(row))


def _read(root_fd: int, path: str) -> str:
    """Read a regular file of the container; a missing one is empty.

    Raises:
        LaunchError: a device, a FIFO, a directory, or over 10 MiB: a file made to stall us.

    """
    try:
        fd = paths.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return ""
        raise _user_error(f"cannot read {path}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _user_error(f"cannot read {path}: not a regular file")
        if status.st_size > SIZE_LIMIT_BYTES:
            raise _user_error(f"cannot read {path}: larger than {SIZE_LIMIT_BYTES} bytes")
        return _read_all(fd, status.st_size).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def _read_all(fd: int, size: int) -> bytes:
    """Read the ``size`` bytes the file had when it was looked at, and no byte that came later."""
    chunks = []
    while size > 0 and (chunk := os.read(fd, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _is_number(text: str) -> bool:
    # Not str.isdigit or int(): they take digits of every script, signs, spaces and "_".
    return bool(text) and all(char in _DIGITS for char in text)


def _is_typed_number(text: str) -> bool:
    """Whether an id was meant, be it a negative one."""
    return _is_number(text.removeprefix("-"))


def _number(text: str) -> int | None:
    return int(text) if _is_number(text) and len(text) <= 10 else None


def _id(text: str) -> int:
    """Return an id somebody typed.

    Raises:
        LaunchError: out of range, with Docker's text.

    """
    if text.startswith("-") or len(text) > 10 or int(text) > MAX_ID:
        raise _user_error(f"uids and gids must be in range 0-{MAX_ID}")
    return int(text)


def _checked(text: str) -> int:
    """Return an id from a file; a malformed one never becomes 0."""
    if not _is_number(text):
        raise _user_error(f"invalid id {text[:32]!r} in the container's passwd or group file")
    return _id(text)


def _user_error(message: str) -> LaunchError:
    return LaunchError(message, step="resolve user", kind="user")
