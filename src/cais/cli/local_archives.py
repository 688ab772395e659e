"""The local half of ``cais cp``: files of this machine to an archive, and an archive to files.

What comes out of a container is nobody's friend: it is unpacked with the destination as root of all
its links (``images.copying``), and belongs to whoever asked for it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError, NotFoundError
from cais.images.copying import CopyOptions, copy_into
from cais.images.layer_writer import pack_file, pack_tree
from cais.images.tar_writer import in_blocks
from cais.snapshots.merged import MergedTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Local:
    """A file of this machine; ``name`` is ``.`` if its content is meant instead of itself."""

    path: str
    name: str
    is_directory: bool


def look_at(path: str, *, follow: bool) -> Local:
    """Describe a source.

    Raises:
        NotFoundError: there is none.

    """
    name = os.path.basename(os.path.abspath(path))
    stripped = path.rstrip("/") or "/"
    follows = follow or path.endswith(("/", "/."))
    try:
        facts = os.stat(stripped, follow_symlinks=follows)
    except OSError as exc:
        raise NotFoundError(f"lstat {path}: {(exc.strerror or '').lower()}") from exc
    if path.endswith("/") and not stat.S_ISDIR(facts.st_mode):
        raise InvalidArgumentError(f"lstat {path}: not a directory")
    actual = os.path.realpath(stripped) if follows else os.path.abspath(stripped)  # noqa: TID251 - a path of this machine
    if path.endswith("/.") or path == ".":
        name = "."
    return Local(actual, name or "/", stat.S_ISDIR(facts.st_mode))


def pack(local: Local, shown: str) -> Iterator[bytes]:
    """Write a file or directory, called ``shown`` in the archive."""
    place = local.path if local.is_directory else os.path.dirname(local.path)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = MergedTree([fd])
        if local.is_directory:
            yield from in_blocks(pack_tree(tree, shown))
        else:
            yield from in_blocks(pack_file(tree, os.path.basename(local.path), shown))
    finally:
        os.close(fd)


def destination(target: str, *, is_directory: bool) -> tuple[str, str | None]:
    """Decide where what came is unpacked, and its new name; None: its own.

    Raises:
        InvalidArgumentError, NotFoundError: Docker's texts.

    """
    if os.path.isdir(target):
        return target, None
    place, name = os.path.split(os.path.abspath(target))
    if not os.path.isdir(place):
        raise NotFoundError(f'invalid output path: directory "{place}" does not exist')
    if os.path.lexists(target) and is_directory:
        raise InvalidArgumentError("cannot copy directory")
    if target.endswith("/") and not is_directory:
        raise NotFoundError("no such directory")
    return place, name


def unpack(pieces: Iterable[bytes], place: str, shown: str, name: str | None) -> None:
    """Unpack what is called ``shown`` in an archive into a directory, as ``name``."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    options = CopyOptions(
        keeps_kinds=True,
        owner=(os.geteuid(), os.getegid()),
        rename=(shown, name) if name is not None and name != shown else None,
    )
    try:
        copy_into(_Pieces(pieces), fd, "/", options)
    finally:
        os.close(fd)


class _Pieces:
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        with contextlib.suppress(StopIteration):
            while not self._rest:
                self._rest = next(self._pieces)
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return chunk
