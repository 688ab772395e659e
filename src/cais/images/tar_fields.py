"""The fields of tar headers: numbers, texts, checksums, PAX records.

Python's own ``int`` reads "1_0", " +7" and Arabic digits; a header does not.
"""

from __future__ import annotations

import os
import re

from cais.errors import InvalidArgumentError

_INTEGER_DIGITS = 20
_is_integer = re.compile(rb"[0-9]{1,%d}" % _INTEGER_DIGITS).fullmatch
_is_time = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]{0,64}))?").fullmatch
_is_octal = re.compile(rb" *([0-7]*)[ \0]*").fullmatch
_record_length = re.compile(rb"([1-9][0-9]{0,7}) ").match


class TarError(InvalidArgumentError):
    """The archive is malformed or breaks a limit."""

    def __init__(self, why: str) -> None:
        super().__init__(f"invalid tar archive: {why}")


def header_text(field: bytes) -> str:
    """Return a NUL-terminated name."""
    return os.fsdecode(field.partition(b"\0")[0])


def header_number(field: bytes, what: str) -> int:
    """Return an octal or base-256 number; the latter may be negative.

    Raises:
        TarError: neither.

    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value & ~(1 << (bits - 1))
    match = _is_octal(field) or _is_octal(field.partition(b"\0")[0])
    if not match:
        raise TarError(f"malformed {what}")
    return int(match[1] or b"0", 8)


def checksum_matches(header: bytes) -> bool:
    """Compare the checksum: the sum of all bytes, its own field taken as blanks.

    Historic writers summed signed bytes; readers accept both.
    """
    field = header[148:156]
    try:
        written = header_number(field, "checksum")
    except TarError:
        return False
    unsigned = sum(header) - sum(field) + 8 * 0x20
    if written == unsigned:
        return True
    high = sum(byte >> 7 for byte in header) - sum(byte >> 7 for byte in field)
    return written == unsigned - 256 * high


def pax_records(text: bytes) -> dict[str, bytes]:
    """Split the records of an extended header; the last one of a key counts.

    GNU's sparse format 0.0 repeats a pair of keys: they come out joined as format 0.1 has them.
    """
    records: dict[str, bytes] = {}
    pieces: list[bytes] = []
    position = 0
    while position < len(text):
        match = _record_length(text, position)
        end = position + int(match[1]) if match else 0
        if not match or end > len(text) or end <= match.end() or text[end - 1] != ord("\n"):
            raise TarError("malformed PAX header")
        key, equals, value = text[match.end() : end - 1].partition(b"=")
        if not key or not equals:
            raise TarError("malformed PAX header")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        records[os.fsdecode(key)] = value
        position = end
    if pieces:
        records["GNU.sparse.map"] = b",".join(pieces)
    return records


def pax_integer(text: bytes) -> int:
    """Return a decimal number; negative ones are refused."""
    if not _is_integer(text):
        raise TarError("malformed number in an extended header")
    return int(text)


def pax_time_ns(text: bytes) -> int:
    """Return "seconds[.fraction]" in nanoseconds; finer fractions are cut off."""
    match = _is_time(text)
    if not match:
        raise TarError("malformed time in an extended header")
    sign = -1 if match[1] else 1
    fraction = (match[3] or b"")[:9].ljust(9, b"0")
    return sign * (int(match[2]) * 1_000_000_000 + int(fraction))


def sparse_pairs(table: bytes) -> list[tuple[int, int]]:
    """Return the (offset, length) pairs of a table of GNU sparse structs; empty ones end it."""
    pairs = []
    for start in range(0, len(table) - 23, 24):
        if table[start] == 0:
            break
        offset = header_number(table[start : start + 12], "sparse offset")
        pairs.append((offset, header_number(table[start + 12 : start + 24], "sparse length")))
    return pairs
