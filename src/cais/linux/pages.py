"""Which pages of memory a process has for itself, and how to have them before they are needed.

After a clone both processes share every page until one writes to it, which copies it: 1.8 µs a
page for the one that waits. Who knows which pages it will write can have them copied ahead.

Spec: proc(5) (``pagemap``; bit 56 since Linux 4.2), madvise(2) (MADV_POPULATE_WRITE: Linux 5.14).
"""

from __future__ import annotations

import os
import struct

from cais.linux.syscalls import KernelError, Long, Pointer, ULong, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Ranges = list[tuple[int, int]]  # (address, bytes)

_MADV_POPULATE_WRITE = 23
_PRESENT, _OF_A_FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
_ENTRY = struct.Struct("=Q")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")

_madvise = system_call("madvise", Pointer, ULong, Long)


def own_pages(pid: int) -> Ranges:
    """Return the private pages a process has copied or made for itself alone.

    Raises:
        OSError: no right to trace it, or it has ended.

    """
    found: Ranges = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for start, end in _private_memory(pid):
            pagemap.seek(start // _PAGE_BYTES * _ENTRY.size)
            entries = pagemap.read((end - start) // _PAGE_BYTES * _ENTRY.size)
            for number, (entry,) in enumerate(_ENTRY.iter_unpack(entries)):
                if entry & (_PRESENT | _OF_A_FILE | _EXCLUSIVE) == _PRESENT | _EXCLUSIVE:
                    _add(found, start + number * _PAGE_BYTES)
    return found


def make_own(ranges: Iterable[tuple[int, int]]) -> None:
    """Copy what is shared in ``ranges``, as a write to each page would; unmapped ones are skipped.

    Before Linux 5.14 nothing is done.
    """
    for address, size in ranges:
        try:
            _madvise(address, size, _MADV_POPULATE_WRITE)
        except KernelError:
            continue


def _private_memory(pid: int) -> Iterator[tuple[int, int]]:
    with open(f"/proc/{pid}/maps", "rb") as maps:
        for line in maps:
            place, access = line.split(b" ", 2)[:2]
            if access[1:2] == b"w" and access[3:4] == b"p":
                start, _, end = place.partition(b"-")
                yield int(start, 16), int(end, 16)


def _add(ranges: Ranges, address: int) -> None:
    if ranges and sum(ranges[-1]) == address:
        start, size = ranges[-1]
        ranges[-1] = start, size + _PAGE_BYTES
    else:
        ranges.append((address, _PAGE_BYTES))
