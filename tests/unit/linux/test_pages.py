"""Which pages a process has for itself, and having them ahead."""

from __future__ import annotations

import ctypes
import mmap
import os

from cais.linux import pages

PAGES = 64


def copied(memory: mmap.mmap) -> int:
    """Return how many pages of ``memory`` the calling process has for itself."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    end = start + len(memory)
    found = pages.own_pages(os.getpid())
    return (
        sum(max(0, min(end, address + size) - max(start, address)) for address, size in found)
        // mmap.PAGESIZE
    )


def test_a_clone_has_no_page_until_it_writes_or_asks_for_it() -> None:
    memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = bytes(len(memory))
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert copied(memory) == PAGES
    read_fd, write_fd = os.pipe()
    if (pid := os.fork()) == 0:
        counts = [copied(memory)]
        memory[0] = 1
        counts.append(copied(memory))
        pages.make_own([(1, 1), (start + 8 * mmap.PAGESIZE, 16 * mmap.PAGESIZE)])
        counts.append(copied(memory))
        os.write(write_fd, bytes(counts))
        os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    assert list(os.read(read_fd, 8)) == [0, 1, 17]
    os.close(read_fd)
    memory = None  # type: ignore[assignment] # its exported buffer goes first
