"""Headers of the archives we write: ustar, with nothing in them that changes from run to run.

Spec: POSIX.1-2017 pax, "ustar Interchange Format"; sizes from 8 GiB on are base-256, as GNU tar
writes them and every reader of today takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.images.tar import BLOCK, DIRECTORY, REGULAR

if TYPE_CHECKING:
    from collections.abc import Iterator

END = bytes(2 * BLOCK)
_WRITE_BYTES = 1024 * 1024
_NAME_LIMIT = 100
_OCTAL_LIMIT = 8**11


def header(
    name: str,
    size: int = 0,
    *,
    kind: int = REGULAR,
    mode: int = 0o644,
    link: str = "",
    mtime: int = 0,
) -> bytes:
    """Return the header of a member owned by root.

    Raises:
        InvalidArgumentError: the name or the link is longer than a plain header holds.

    """
    encoded_name, encoded_link = name.encode(), link.encode()
    if max(len(encoded_name), len(encoded_link)) > _NAME_LIMIT:
        raise InvalidArgumentError(f"archive member name {name!r} is longer than {_NAME_LIMIT}")
    block = bytearray(BLOCK)
    block[0 : len(encoded_name)] = encoded_name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size if size < _OCTAL_LIMIT else _base_256(size)
    block[136:148] = b"%011o\0" % mtime
    block[148:156] = b" " * 8
    block[156] = kind
    block[157 : 157 + len(encoded_link)] = encoded_link
    block[257:265] = b"ustar\x0000"
    block[329:337] = block[337:345] = b"0000000\0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def file(name: str, content: bytes, mode: int = 0o644) -> Iterator[bytes]:
    """Yield a small member: header, content, padding."""
    yield header(name, len(content), mode=mode)
    yield content + padding(len(content))


def directory(name: str, mode: int = 0o755) -> bytes:
    """Return the header of a directory."""
    return header(f"{name.rstrip('/')}/", kind=DIRECTORY, mode=mode)


def padding(size: int) -> bytes:
    """Return the zeros after a member's content."""
    return bytes(-size % BLOCK)


def in_blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join the pieces of an archive to blocks of about a MiB."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _WRITE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _base_256(number: int) -> bytes:
    return b"\x80" + number.to_bytes(11, "big")
