"""Clone a sibling: a process that is a child of the caller's parent.

The caller tells the parent its pid, but may be killed the moment after the clone, by the OOM
killer for one. So the kernel writes it down as well, before the clone is over, in a page that
parent and caller share. The sibling has no such page: there it could be made to tell a lie.

Spec: clone(2) (CLONE_PARENT, CLONE_PARENT_SETTID; CLONE_INTO_CGROUP: Linux 5.7), madvise(2)
(MADV_DONTFORK).
"""

from __future__ import annotations

import ctypes

from cais.linux.process import CLONE_INTO_CGROUP, CloneArgs, clone3
from cais.linux.syscalls import Long, Pointer, ULong, system_call

CLONE_PARENT = 0x00008000
CLONE_PARENT_SETTID = 0x00100000
_PROT_READ_WRITE = 0x3
_MAP_SHARED_ANONYMOUS = 0x21
_MADV_DONTFORK = 10

_clone = system_call("clone", ULong, Pointer, Pointer, Pointer, ULong)
_mmap = system_call("mmap", Pointer, ULong, Long, Long, Long, Long)
_munmap = system_call("munmap", Pointer, ULong)
_madvise = system_call("madvise", Pointer, ULong, Long)
PAGE_BYTES = 4096  # the kernel rounds up where its pages are larger


def withhold(page_address: int) -> None:
    """Give a page to no process that the caller clones from now on."""
    _madvise(page_address, PAGE_BYTES, _MADV_DONTFORK)


class Birth:
    """Where the pid of a sibling to be is written; shared with the processes cloned later.

    Owns memory: ``close`` it, in the parent.
    """

    __slots__ = ("_address",)

    def __init__(self) -> None:
        self._address = _mmap(None, PAGE_BYTES, _PROT_READ_WRITE, _MAP_SHARED_ANONYMOUS, -1, 0)

    @property
    def address(self) -> int:
        """Where the pid is; 0: nowhere any more."""
        return self._address

    @property
    def pid(self) -> int:
        """The sibling's pid as its parent sees it; 0: none was made."""
        return self._number.value if self._address else 0

    def keep_from_children(self) -> None:
        """Share it with no process that this one clones; called by who makes the sibling.

        A filter loaded after this call needs to allow nothing but clone for ``clone_sibling``.
        """
        withhold(self._address)
        self._number.value = 0  # in memory from now on: the kernel's writing cannot fail

    def clone_sibling(self, flags: int = 0, *, cgroup_fd: int = -1) -> int:
        """Clone this process as a sibling, with clone(2): filters refuse clone3.

        Args:
            flags: CLONE_NEW* of the new process.
            cgroup_fd: a cgroup v2 directory it starts in, with clone3 after all. Borrowed.

        Returns:
            0 in the new process, its pid in the caller.

        """
        flags |= CLONE_PARENT | CLONE_PARENT_SETTID
        if cgroup_fd < 0:
            return _clone(flags, None, self._address, None, 0)
        args = CloneArgs(flags=flags | CLONE_INTO_CGROUP, parent_tid=self._address)
        args.cgroup = cgroup_fd
        return clone3(ctypes.addressof(args), ctypes.sizeof(args))

    def close(self) -> None:
        """Give the memory back; idempotent."""
        address, self._address = self._address, 0
        if address:
            _munmap(address, PAGE_BYTES)

    @property
    def _number(self) -> ctypes.c_int:
        return ctypes.c_int.from_address(self._address)
