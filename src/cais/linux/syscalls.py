"""System calls that Python does not offer, as functions that raise.

``ctypes.CDLL(None).syscall`` is declared once per call with full-width argument types: passed as
varargs, a Python int would become a C ``int`` and lose half of a pointer or a mask.

Every wrapper in this room that creates a descriptor passes the call's own CLOEXEC flag, because
nothing does it for ctypes (Python's PEP 446 covers the standard library only). Calls that were
interrupted are repeated (PEP 475 leaves ctypes out too).

Spec: syscalls(2); the numbers are those of ``asm/unistd_64.h`` and ``asm-generic/unistd.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., int]

# Calls added since Linux 5.1 have one number everywhere.
_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}
_OLDER = {
    "x86_64": {
        "clone": 56,
        "ptrace": 101,
        "mmap": 9,
        "munmap": 11,
        "madvise": 28,
        "execve": 59,
        "setfsuid": 122,
        "setfsgid": 123,
        "capget": 125,
        "capset": 126,
        "personality": 135,
        "fstatfs": 138,
        "pivot_root": 155,
        "rt_sigaction": 13,
        "prctl": 157,
        "mount": 165,
        "umount2": 166,
        "sethostname": 170,
        "setdomainname": 171,
        "keyctl": 250,
        "ioprio_set": 251,
        "unshare": 272,
        "setns": 308,
        "set_mempolicy": 238,
        "sched_setattr": 314,
        "execveat": 322,
    },
    "aarch64": {
        "clone": 220,
        "ptrace": 117,
        "mmap": 222,
        "munmap": 215,
        "madvise": 233,
        "execve": 221,
        "setfsuid": 151,
        "setfsgid": 152,
        "capget": 90,
        "capset": 91,
        "personality": 92,
        "fstatfs": 44,
        "pivot_root": 41,
        "rt_sigaction": 134,
        "prctl": 167,
        "mount": 40,
        "umount2": 39,
        "sethostname": 161,
        "setdomainname": 162,
        "keyctl": 219,
        "ioprio_set": 30,
        "unshare": 97,
        "setns": 268,
        "set_mempolicy": 237,
        "sched_setattr": 274,
        "execveat": 281,
    },
}
MACHINE = os.uname().machine
_NUMBERS = _COMMON | _OLDER.get(MACHINE, {})
_libc = ctypes.CDLL(None, use_errno=True)

Long = ctypes.c_long
ULong = ctypes.c_ulong
Bytes = ctypes.c_char_p
Pointer = ctypes.c_void_p


class KernelError(OSError):
    """A system call failed: ``errno`` is the kernel's, ``step`` names the call and its operand."""

    def __init__(self, code: int, step: str, detail: str = "") -> None:
        self.step = step
        why = os.strerror(code)
        super().__init__(code, f"{step}: {why}{f' ({detail})' if detail else ''}")


def system_call(name: str, *argtypes: type) -> Call:
    """Return a function of the named system call.

    The function takes the call's arguments and ``about``, the operand to name in an error. It
    repeats the call on EINTR and raises ``KernelError`` on any other failure.
    """
    number = _NUMBERS.get(name, -1)  # an unknown machine: ENOSYS from the kernel, at the call
    prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)
    return raising(name, number, prototype(("syscall", _libc)))


def raising(name: str, number: int, raw: Call) -> Call:
    """Turn ``raw(number, ...) -> -1 and errno`` into a function that raises."""

    def call(*args: object, about: str = "") -> int:
        while (result := raw(number, *args)) < 0:
            code = ctypes.get_errno()
            if code != errno.EINTR:
                raise KernelError(code, f"{name} {about}" if about else name)
        return result

    return call
