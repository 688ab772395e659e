"""The first difference between two directories, to the last attribute."""

from __future__ import annotations

import os
import stat
from pathlib import PurePath
from typing import TYPE_CHECKING

from cais.linux.whiteouts import attribute_meant, device_of

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1024 * 1024
_NOTED_BY_OVERLAYFS = ("trusted.overlay.impure", "trusted.overlay.origin", "trusted.overlay.uuid")
_FIELDS = {
    "owner": lambda status: status.st_uid,
    "group": lambda status: status.st_gid,
    "device": device_of,
}


def first_difference(expected: Path, found: Path) -> str | None:
    """Compare two trees that nobody changes meanwhile; None: they are the same.

    Names, kinds, owners, modes, links, devices, extended attributes, contents, and the times of
    what is no directory. What hides names does so in either of the forms of ``linux.whiteouts``.
    """
    pending = [PurePath()]
    while pending:
        name = pending.pop()
        if difference := _difference(expected / name, found / name):
            return f"/{name} {difference}" if name.parts else f"/ {difference}"
        if stat.S_ISDIR((expected / name).lstat().st_mode):
            names, others = (
                {each.name for each in (t / name).iterdir()} for t in (expected, found)
            )
            if lost := names - others:
                return f"/{name / min(lost)} is missing"
            if added := others - names:
                return f"/{name / min(added)} is too many"
            pending += [name / each for each in sorted(names, reverse=True)]
    return None


def _difference(expected: Path, found: Path) -> str | None:
    want, have = expected.lstat(), found.lstat()
    if stat.S_IFMT(want.st_mode) != stat.S_IFMT(have.st_mode):
        return "is of another kind"
    if stat.S_IMODE(want.st_mode) != stat.S_IMODE(have.st_mode):
        return f"has mode {stat.S_IMODE(have.st_mode):o} instead of {stat.S_IMODE(want.st_mode):o}"
    for word, value_of in _FIELDS.items():
        if value_of(want) != value_of(have):
            return f"has {word} {value_of(have)} instead of {value_of(want)}"
    if _attributes(expected) != _attributes(found):
        return "has other extended attributes"
    if stat.S_ISDIR(want.st_mode):
        return None
    if want.st_mtime_ns != have.st_mtime_ns:
        return "has another time"
    if stat.S_ISLNK(want.st_mode):
        return None if expected.readlink() == found.readlink() else "leads elsewhere"
    if stat.S_ISREG(want.st_mode) and not _is_same_content(expected, found):
        return "has another content"
    return None


def _attributes(path: Path) -> dict[str, bytes]:
    return {
        attribute_meant(name): os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(_NOTED_BY_OVERLAYFS)
    }


def _is_same_content(expected: Path, found: Path) -> bool:
    with expected.open("rb") as one, found.open("rb") as other:
        while True:
            chunk = one.read(_CHUNK)
            if chunk != other.read(_CHUNK):
                return False
            if not chunk:
                return True
