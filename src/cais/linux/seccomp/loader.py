"""Loading a compiled filter: one system call, nothing else imported.

Spec: seccomp(2), SECCOMP_SET_MODE_FILTER; ``struct sock_fprog`` of <linux/filter.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os

MAGIC = b"CSF1"
HEADER_BYTES = 8
INSTRUCTION_BYTES = 8
MAX_INSTRUCTIONS = 4096
LOG, SPEC_ALLOW, NEW_LISTENER, WAIT_KILLABLE = 0x02, 0x04, 0x08, 0x20  # SECCOMP_FILTER_FLAG_*
_SET_MODE_FILTER = 1
_NUMBERS = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "s390x": 348, "ppc64le": 358}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


_prototype = ctypes.CFUNCTYPE(
    *(ctypes.c_long, ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(_Program)),
    use_errno=True,
)
_seccomp = _prototype(("syscall", ctypes.CDLL(None, use_errno=True)))


def load(program: bytes) -> int:
    """Put the calling thread, and all it starts, under ``program`` for good.

    Without no_new_privs this needs CAP_SYS_ADMIN, so it comes before capabilities are dropped;
    with it, as late as possible: whatever runs afterwards runs under the filter.

    Returns:
        The listener of a program that notifies (owned, close-on-exec), otherwise -1.

    Raises:
        OSError: EACCES, neither the privilege nor no_new_privs; EINVAL, not a program of ours,
            or one the kernel's checker refuses, or a flag it is too old for; EBUSY, a filter
            with a listener holds already; ENOSYS, no such system call here.

    """
    flags, instructions = unpack(program)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    prog = _Program(len(instructions) // INSTRUCTION_BYTES, ctypes.addressof(buffer))
    number = _NUMBERS.get(os.uname().machine, -1)
    result = _seccomp(number, _SET_MODE_FILTER, flags, ctypes.byref(prog))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
    return result if flags & NEW_LISTENER else -1


def has_listener(program: bytes) -> bool:
    """Say whether ``load`` will return a listener. OSError: as ``unpack``."""
    return bool(unpack(program)[0] & NEW_LISTENER)


def pack(instructions: bytes, flags: int = 0) -> bytes:
    """Return the program's form on disk: a magic number, the flags of seccomp(2), the code."""
    return MAGIC + flags.to_bytes(4, "little") + instructions


def unpack(program: bytes) -> tuple[int, bytes]:
    """Return flags and code. OSError: EINVAL, it is not a program of ours."""
    code = program[HEADER_BYTES:]
    whole = len(code) % INSTRUCTION_BYTES == 0
    if program[:4] != MAGIC or not whole or not 0 < len(code) // 8 <= MAX_INSTRUCTIONS:
        raise OSError(errno.EINVAL, "seccomp: not a compiled filter")
    return int.from_bytes(program[4:HEADER_BYTES], "little"), code
