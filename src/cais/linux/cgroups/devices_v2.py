"""Device limits on cgroup v2: a program the kernel asks at every mknod and open.

The program is assembled here from a ``DeviceSet`` and needs no compiler. It is attached with
BPF_F_ALLOW_MULTI, so programs of parents still count; on an update the new one is attached before
the old ones go, and at no moment is the group looser than both.

Spec: bpf(2); kernel Documentation/bpf/prog_cgroup_device (struct bpf_cgroup_dev_ctx).
"""

from __future__ import annotations

import os
import struct

from cais.linux.cgroups import bpf
from cais.linux.cgroups.device_rules import ANY, DeviceSet
from cais.linux.cgroups.files import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ACCESS_BITS = {"m": 1, "r": 2, "w": 4}
TYPE_NUMBERS = {"b": 1, "c": 2}

# Opcodes of <linux/bpf.h>; K takes the immediate, X the source register.
_LDX_W, _MOV_X, _MOV_K = 0x61, 0xBF, 0xB7
_AND_K, _RSH_K = 0x57, 0x77
# Comparisons are of 32 bits: the 64-bit ones would extend the sign of a number above 2**31.
_JNE_K, _JNE_X, _JEQ_K, _EXIT = 0x56, 0x5E, 0x16, 0x95
_RESULT, _CONTEXT, _TYPE, _ACCESS, _MAJOR, _MINOR, _SCRATCH = 0, 1, 2, 3, 4, 5, 6


def apply(directory: str, wanted: DeviceSet) -> None:
    """Make ``wanted`` the group's only program of its own.

    Raises:
        CgroupError: EPERM, no CAP_BPF or CAP_SYS_ADMIN; EINVAL, a kernel without
            CONFIG_CGROUP_BPF.

    """
    try:
        group_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise CgroupError(exc.errno or 0, "open", directory) from exc
    try:
        _replace(group_fd, assemble(wanted))
    except OSError as exc:
        raise CgroupError(exc.errno or 0, f"attach device program ({exc})", directory) from exc
    finally:
        os.close(group_fd)


def assemble(devices: DeviceSet) -> bytes:
    """Return the instructions: 1 to allow, 0 to refuse with EPERM."""
    code = [
        _instruction(_LDX_W, _ACCESS, _CONTEXT, 0),
        _instruction(_MOV_X, _TYPE, _ACCESS),
        _instruction(_AND_K, _TYPE, value=0xFFFF),
        _instruction(_RSH_K, _ACCESS, value=16),
        _instruction(_LDX_W, _MAJOR, _CONTEXT, 4),
        _instruction(_LDX_W, _MINOR, _CONTEXT, 8),
    ]
    for (kind, major, minor), access in devices.exceptions.items():
        code += _block(kind, major, minor, access, allow=not devices.allows_by_default)
    code += _verdict(allow=devices.allows_by_default)
    return b"".join(code)


def _block(kind: str, major: int, minor: int, access: Iterable[str], *, allow: bool) -> list[bytes]:
    """One exception: a chain of tests, each jumping behind the verdict when it fails."""
    bits = sum(ACCESS_BITS[letter] for letter in access)
    tests = [(_JNE_K, _TYPE, 0, TYPE_NUMBERS[kind])]
    if major != ANY:
        tests.append((_JNE_K, _MAJOR, 0, major))
    if minor != ANY:
        tests.append((_JNE_K, _MINOR, 0, minor))
    steps: list[tuple[int, int, int, int] | bytes] = [*tests]
    if bits != sum(ACCESS_BITS.values()):
        steps += [
            _instruction(_MOV_X, _SCRATCH, _ACCESS),
            _instruction(_AND_K, _SCRATCH, value=bits),
            # Allowed when nothing beyond ``bits`` is asked for; refused when any of them is.
            (_JNE_X, _SCRATCH, _ACCESS, 0) if allow else (_JEQ_K, _SCRATCH, 0, 0),
        ]
    verdict = _verdict(allow=allow)
    length = len(steps) + len(verdict)
    return [
        step if isinstance(step, bytes) else _jump(*step, distance=length - index - 1)
        for index, step in enumerate(steps)
    ] + verdict


def _verdict(*, allow: bool) -> list[bytes]:
    return [_instruction(_MOV_K, _RESULT, value=int(allow)), _instruction(_EXIT)]


def _jump(opcode: int, register: int, source: int, value: int, *, distance: int) -> bytes:
    return _instruction(opcode, register, source, distance, value)


def _instruction(
    opcode: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    # Immediates are signed 32-bit fields; a device number above 2**31 keeps its bits.
    signed = value - 2**32 if value >= 2**31 else value
    return struct.pack("=BBhi", opcode, source << 4 | target, offset, signed)


def _replace(group_fd: int, program: bytes) -> None:
    old = bpf.attached_devices(group_fd)
    new_fd = bpf.load_device_program(program)
    try:
        if len(old) == 1:
            bpf.replace_devices(group_fd, new_fd, old[0])
            return
        bpf.attach_devices(group_fd, new_fd)
        for number in old:
            bpf.detach_devices(group_fd, number)
    finally:
        os.close(new_fd)
