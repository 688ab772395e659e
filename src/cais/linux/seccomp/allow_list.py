"""A filter of a few system calls for a process of our own, made without libseccomp.

Every other call fails with EPERM, as do calls of another architecture's numbers.

Spec: seccomp(2), ``struct seccomp_data``; Linux arch/x86/entry/syscalls/syscall_64.tbl,
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import struct

from cais.linux import process
from cais.linux.seccomp import loader
from cais.linux.syscalls import MACHINE, KernelError

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # <linux/audit.h>
_NUMBERS = {
    "x86_64": {
        "close": 3,
        "mmap": 9,
        "munmap": 11,
        "brk": 12,
        "mremap": 25,
        "madvise": 28,
        "sendmsg": 46,
        "clone": 56,
        "exit_group": 231,
        "waitid": 247,
    },
    "aarch64": {
        "close": 57,
        "exit_group": 94,
        "waitid": 95,
        "sendmsg": 211,
        "brk": 214,
        "munmap": 215,
        "mremap": 216,
        "clone": 220,
        "mmap": 222,
        "madvise": 233,
    },
}
_SAME = {"fsopen": 430}  # calls added since Linux 5.1 have one number everywhere
_MEMORY = ("brk", "madvise", "mmap", "mremap", "munmap")  # what running Python takes
_NUMBER_AT, _ARCHITECTURE_AT, _FLAGS_AT = 0, 4, 16  # of clone's flags: the low half
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


def assemble(names: tuple[str, ...]) -> bytes:
    """Return a program, for ``load``, of the calls ``names`` and those that get and free memory.

    ``clone`` is allowed for ``process.fork`` alone: no new namespaces, and nobody else's child.

    Raises:
        KernelError: ENOSYS, the numbers of this machine are not known here.

    """
    if MACHINE not in _AUDIT_ARCHITECTURES:
        raise KernelError(errno.ENOSYS, "seccomp", MACHINE)
    known = _SAME | _NUMBERS[MACHINE]
    plain = sorted({known[name] for name in (*names, *_MEMORY) if name != "clone"})
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCHITECTURES[MACHINE]),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in plain:
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    if "clone" in names:
        code += [(_JUMP_EQUAL, 0, 3, known["clone"]), (_LOAD, 0, 0, _FLAGS_AT)]
        code += [(_JUMP_EQUAL, 0, 1, process.FORK_FLAGS), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _REFUSE))
    return loader.pack(b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
