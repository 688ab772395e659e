"""What is asked before libseccomp's own program: system calls that are newer than it.

libseccomp refuses names it does not know, and its program answers an unknown number with the
default action, EPERM; but a C library that tries a new call and falls back on ENOSYS then breaks.
So the compiled program begins with a small one of ours, for every architecture of the filter:

- a call the profile names and libseccomp does not know gets the rule's answer;
- a call newer than every one known here, or to libseccomp, gets ENOSYS;
- everything else goes on to libseccomp's program.

Spec: seccomp(2), ``struct seccomp_data``; Linux arch/*/entry/syscalls/*.tbl up to 6.18.
"""

from __future__ import annotations

import errno
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Since 424 a new call has the same number on every architecture here.
COMMON = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
NEWEST = max(COMMON.values())
_X86_64_ONLY = {"uretprobe": 335, "uprobe": 336}
X32_BIT = 0x40000000
# AUDIT_ARCH_* of <linux/audit.h>; x32 shares x86-64's and is told by its numbers.
AUDIT_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
    "SCMP_ARCH_S390X": 0x80000016,
    "SCMP_ARCH_S390": 0x00000016,
    "SCMP_ARCH_PPC64LE": 0xC0000015,
    "SCMP_ARCH_LOONGARCH64": 0xC0000102,
}
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ALWAYS, _AND, _RETURN = 0x20, 0x15, 0x25, 0x05, 0x54, 6
_RET_ERRNO = 0x00050000


def number_of(name: str, architecture: str) -> int | None:
    """Return the number of a call that libseccomp may not know; None if it is not known here."""
    if architecture == "SCMP_ARCH_X86_64" and name in _X86_64_ONLY:
        return _X86_64_ONLY[name]
    return COMMON.get(name)


def assemble(architectures: Mapping[str, int], answers: Mapping[str, Mapping[int, int]]) -> bytes:
    """Return the instructions to put before the filter; they fall through at their end.

    Args:
        architectures: libseccomp's name to the newest number libseccomp knows there.
        answers: for each, number to what the filter returns.

    """
    blocks = []
    for name, newest in architectures.items():
        if name in AUDIT_ARCHITECTURES:
            block = _block(max(newest, NEWEST), answers.get(name, {}), is_x86_64="X86_64" in name)
            blocks.append((AUDIT_ARCHITECTURES[name], block))
    total = sum(len(block) + 2 for _, block in blocks)
    code = [_instruction(_LOAD, value=_OFFSET_ARCH)]
    for audit_arch, block in blocks:
        total -= len(block) + 2
        code.append(_instruction(_JUMP_EQUAL, 0, len(block) + 1, audit_arch))
        code += block
        code.append(_instruction(_JUMP_ALWAYS, value=total))
    return b"".join(code)


def _block(newest: int, answers: Mapping[int, int], *, is_x86_64: bool) -> list[bytes]:
    code = [_instruction(_LOAD, value=_OFFSET_NUMBER)]
    if is_x86_64:  # an x32 number is judged by its low bits
        code.append(_instruction(_AND, value=0xFFFFFFFF & ~X32_BIT))
    for number, answer in sorted(answers.items()):
        code += [_instruction(_JUMP_EQUAL, 0, 1, number), _instruction(_RETURN, value=answer)]
    enosys = _RET_ERRNO | errno.ENOSYS
    return [*code, _instruction(_JUMP_GREATER, 0, 1, newest), _instruction(_RETURN, value=enosys)]


def _instruction(opcode: int, if_true: int = 0, if_false: int = 0, value: int = 0) -> bytes:
    return struct.pack("=HBBI", opcode, if_true, if_false, value)
