"""Tar archives written byte by byte, because libraries refuse to write the ones that matter."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK = 512
END = bytes(2 * BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """One member as it shall stand in the archive; nothing is checked."""

    name: str | bytes
    content: bytes = b""
    kind: bytes = b"0"
    link: str | bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_000_000_000
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str | bytes] = field(default_factory=dict)
    size: bytes | None = None
    """The size field as it is written; the content's length when None."""


def tar(members: Iterable[Member], end: bytes = END) -> bytes:
    """Return the archive."""
    return b"".join(map(member_bytes, members)) + end


def member_bytes(member: Member) -> bytes:
    """Return one member: PAX header if any, GNU long names where needed, header, content."""
    name, link = _bytes(member.name), _bytes(member.link)
    out = b""
    if member.pax:
        records = pax_records(member.pax)
        out += header(b"pax", b"x", len(records)) + _padded(records)
    for long, kind in ((name, b"L"), (link, b"K")):
        if len(long) > 100:
            out += header(b"././@LongLink", kind, len(long) + 1) + _padded(long + b"\0")
    out += header(
        name[:100], member.kind, len(member.content), link=link[:100], mode=member.mode,
        owner=(member.uid, member.gid), mtime=member.mtime, device=member.device, size=member.size,
    )  # fmt: skip
    return out + _padded(member.content)


def header(
    name: bytes,
    kind: bytes,
    length: int,
    *,
    link: bytes = b"",
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    mtime: int = 0,
    device: tuple[int, int] = (0, 0),
    size: bytes | None = None,
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """Return one header with a right checksum."""
    block = bytearray(BLOCK)

    def put(offset: int, content: bytes) -> None:
        block[offset : offset + len(content)] = content

    put(0, name)
    put(100, b"%07o\0" % mode)
    put(108, b"%07o\0" % owner[0])
    put(116, b"%07o\0" % owner[1])
    put(124, b"%011o\0" % length if size is None else size)
    put(136, b"%011o\0" % mtime)
    put(148, b" " * 8)
    put(156, kind)
    put(157, link)
    put(257, magic)
    put(329, b"%07o\0%07o\0" % device)
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def pax_records(records: Mapping[str, str | bytes]) -> bytes:
    """Return the text of an extended header."""
    return b"".join(pax_record(_bytes(key), _bytes(value)) for key, value in records.items())


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return one record, whose length counts its own digits."""
    tail = b" %s=%s\n" % (key, value)
    length = len(tail)
    while length != len(b"%d" % length) + len(tail):
        length = len(b"%d" % length) + len(tail)
    return b"%d" % length + tail


def fingerprint(root: str | os.PathLike[str]) -> str:
    """Return a digest of a tree: names, kinds, modes, owners, times, inodes, xattrs, contents."""
    digest = hashlib.sha256()
    for directory, names, files in os.walk(root):
        names.sort()
        for path in [directory, *(os.path.join(directory, name) for name in sorted(names + files))]:
            digest.update(repr((os.path.relpath(path, root), *_facts(path))).encode())
    return digest.hexdigest()


def _facts(path: str) -> tuple[object, ...]:
    facts = os.lstat(path)
    xattrs = [
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    ]
    content = b""
    if stat.S_ISREG(facts.st_mode):
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).digest()
    elif stat.S_ISLNK(facts.st_mode):
        content = os.fsencode(os.readlink(path))
    return (
        facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns, facts.st_ino, facts.st_nlink,
        facts.st_rdev, xattrs, content,
    )  # fmt: skip


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def _bytes(text: str | bytes) -> bytes:
    return os.fsencode(text) if isinstance(text, str) else text
