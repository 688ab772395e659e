"""Headers of any file there can be, always the same bytes for the same file.

Plain ustar where that holds everything; what it cannot hold (names that are long or not ASCII, fine
or negative times, large numbers, extended attributes) stands in a PAX header before it. There are
no user and group names, no access times and no numbers of the writing process in it.

Spec: POSIX.1-2017 pax, "pax Extended Header"; ``SCHILY.xattr.`` as star defined it, with "=" in an
attribute's name as GNU tar writes it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.images.tar import BLOCK, DIRECTORY, NAME_LIMIT_BYTES, PAX_LIMIT_BYTES

if TYPE_CHECKING:
    from cais.images.tar import Entry

_FIELD = 100
_PAX = ord("x")
_PAX_NAME = b"././@PaxHeader"
_ID_LIMIT = 8**7
_NUMBER_LIMIT = 8**11
_BILLION = 1_000_000_000
_AMBIGUOUS = re.compile(rb"%(?=25|3D)")  # any other "%" means itself, to Go's readers as well


def member_header(entry: Entry) -> bytes:
    """Return everything that stands before the data of a member; ``entry.sparse`` is not written.

    Raises:
        InvalidArgumentError: a name or the attributes are longer than any reader here takes.

    """
    name = os.fsencode(entry.name)
    if entry.kind == DIRECTORY:
        name = name.rstrip(b"/") + b"/"
    link = os.fsencode(entry.link)
    records = _records(entry, name, link)
    block = _ustar(entry, name, link)
    if not records:
        return block
    text = b"".join(_record(key, records[key]) for key in sorted(records))
    if len(text) > PAX_LIMIT_BYTES:
        raise InvalidArgumentError(f"{entry.name[:200]!r}: the extended attributes are too large")
    return _pax_block(len(text)) + text + bytes(-len(text) % BLOCK) + block


def _records(entry: Entry, name: bytes, link: bytes) -> dict[bytes, bytes]:
    """Return what the plain header cannot say."""
    records = {}
    for key, value in ((b"path", name), (b"linkpath", link)):
        if len(value) > NAME_LIMIT_BYTES:
            raise InvalidArgumentError(
                f"{entry.name[:200]!r}...: {key.decode()} is longer than {NAME_LIMIT_BYTES} bytes"
            )
        if not _fits(value):
            records[key] = value
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number >= _ID_LIMIT:
            records[key] = b"%d" % number
    if entry.size >= _NUMBER_LIMIT:
        records[b"size"] = b"%d" % entry.size
    if entry.mtime_ns % _BILLION or not 0 <= entry.mtime_ns < _NUMBER_LIMIT * _BILLION:
        records[b"mtime"] = _time(entry.mtime_ns)
    for attribute, value in entry.xattrs.items():
        escaped = _AMBIGUOUS.sub(b"%25", os.fsencode(attribute)).replace(b"=", b"%3D")
        records[b"SCHILY.xattr." + escaped] = value
    return records


def _fits(name: bytes) -> bool:
    return len(name) <= _FIELD and name.isascii()


def _time(ns: int) -> bytes:
    seconds, fraction = divmod(abs(ns), _BILLION)
    text = b"%d.%09d" % (seconds, fraction)
    return (b"-" if ns < 0 else b"") + text.rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """Return "length key=value", whose length counts its own digits."""
    tail = b" %s=%s\n" % (key, value)
    length = len(tail) + 1
    while length != len(tail) + len(b"%d" % length):
        length = len(tail) + len(b"%d" % length)
    return b"%d%s" % (length, tail)


def _ustar(entry: Entry, name: bytes, link: bytes) -> bytes:
    block = _block(name[:_FIELD], entry.kind, entry.size if entry.size < _NUMBER_LIMIT else 0)
    mtime = entry.mtime_ns // _BILLION
    block[100:108] = b"%07o\0" % entry.mode
    block[108:116] = b"%07o\0" % (entry.uid if entry.uid < _ID_LIMIT else 0)
    block[116:124] = b"%07o\0" % (entry.gid if entry.gid < _ID_LIMIT else 0)
    block[136:148] = b"%011o\0" % (mtime if 0 <= mtime < _NUMBER_LIMIT else 0)
    block[157 : 157 + len(link[:_FIELD])] = link[:_FIELD]
    block[329:337] = b"%07o\0" % entry.major
    block[337:345] = b"%07o\0" % entry.minor
    return _with_checksum(block)


def _pax_block(size: int) -> bytes:
    return _with_checksum(_block(_PAX_NAME, _PAX, size))


def _block(name: bytes, kind: int, size: int) -> bytearray:
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[156] = kind
    block[257:265] = b"ustar\x0000"
    block[329:337] = block[337:345] = b"0000000\0"
    return block


def _with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
