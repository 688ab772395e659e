"""Go on as another process, a sibling, in the memory of this one.

clone3 with CLONE_VM copies no page and no page table: the new process returns from the call in
the caller's own memory and on its stack. The caller must never run again, for that stack is the
other's now. CLONE_VFORK holds it in the kernel until the other has executed or ended; there, as
its tracer (``seize``) asked for, the kernel stops it instead of letting it return, and kills it
when the tracer ends. So all that is left of it is to be killed.

    parent                     caller                      successor
    seize(caller) ──word──▶    succeed() ── clone3 ──▶     goes on
    kill, reap                 held, then stopped

Spec: clone(2) (clone3: Linux 5.3, CLONE_INTO_CGROUP 5.7), vfork(2), ptrace(2) (PTRACE_O_EXITKILL:
Linux 3.8).
"""

from __future__ import annotations

import ctypes

from cais.linux.process import CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CloneArgs, clone3
from cais.linux.siblings import CLONE_PARENT, CLONE_PARENT_SETTID, PAGE_BYTES, Birth, withhold
from cais.linux.syscalls import Long, Pointer, system_call

CLONE_VM = 0x00000100
CLONE_VFORK = 0x00004000
CLONE_UNTRACED = 0x00800000
_SUCCESSION = CLONE_VM | CLONE_VFORK | CLONE_UNTRACED | CLONE_PARENT | CLONE_PARENT_SETTID
_PTRACE_SEIZE = 0x4206
_PTRACE_O_TRACEVFORKDONE = 0x00000020
_PTRACE_O_EXITKILL = 0x00100000
_PLACE_BYTES = 8
_PLACES = PAGE_BYTES // _PLACE_BYTES

_ptrace = system_call("ptrace", Long, Long, Pointer, Pointer)


class Births:
    """Places for the pids of many successors to be, in one page shared with those cloned later.

    A place is used again after all others: far more than there are waiting.
    """

    __slots__ = ("_next", "_page")

    def __init__(self) -> None:
        self._page = Birth()
        self._next = 0

    def take(self) -> Birth:
        """Return the next place, empty."""
        place = BirthPlace(self._page.address + self._next * _PLACE_BYTES)
        self._next = (self._next + 1) % _PLACES
        place.close()
        return place

    def close(self) -> None:
        """Give the memory back; idempotent."""
        self._page.close()


class BirthPlace(Birth):
    """A place in memory that another owns."""

    __slots__ = ()

    def __init__(self, address: int) -> None:
        self._address = address

    def keep_from_children(self) -> None:
        """Share the page it lies in with no process that this one clones."""
        withhold(self._address & -PAGE_BYTES)
        self.close()  # in memory from now on: the kernel's writing cannot fail

    def close(self) -> None:
        """Empty it."""
        ctypes.c_int.from_address(self._address).value = 0


def seize(pid: int) -> None:
    """Make a child ready for ``succeed``: it will not run after that, nor outlive the caller.

    Raises:
        KernelError: EPERM, no CAP_SYS_PTRACE, or another traces it; ESRCH, it has ended.

    """
    _ptrace(_PTRACE_SEIZE, pid, None, _PTRACE_O_EXITKILL | _PTRACE_O_TRACEVFORKDONE)


def succeed(flags: int, birth: Birth, *, cgroup_fd: int = -1) -> None:
    """Go on as a new process, a child of the caller's parent; only that one returns.

    The caller must have been seized by its parent, be single-threaded, and share its files and
    directories with nobody.

    Args:
        flags: CLONE_NEW* of the new process.
        birth: where the kernel writes its pid.
        cgroup_fd: a cgroup v2 directory it starts in. Borrowed.

    Raises:
        KernelError: as ``process.clone``; there is no other process then.

    """
    args = CloneArgs(flags=flags | _SUCCESSION | CLONE_CLEAR_SIGHAND)
    args.parent_tid = birth.address
    if cgroup_fd >= 0:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    clone3(ctypes.addressof(args), ctypes.sizeof(args))
