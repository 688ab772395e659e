"""The five bpf(2) commands device limits need. Loaded on cgroup v2 hosts only.

Spec: bpf(2), <linux/bpf.h> ``union bpf_attr``.
"""

from __future__ import annotations

import ctypes
import os

from cais.linux.signals import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROG_LOAD, PROG_ATTACH, PROG_DETACH = 5, 8, 9
PROG_GET_FD_BY_ID, PROG_QUERY = 13, 16
PROG_TYPE_CGROUP_DEVICE, CGROUP_DEVICE = 15, 6
F_ALLOW_MULTI, F_REPLACE = 2, 4
MAX_PROGRAMS = 64  # the kernel's own limit per group and attach type
_ATTR_BYTES = 120
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}


def load_device_program(instructions: bytes) -> int:
    """Load and verify a program; the caller closes the descriptor (it is close-on-exec).

    Raises:
        OSError: EINVAL or EACCES, the verifier refused; EPERM, not privileged.

    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attr = _Attr()
    attr.u32(0, PROG_TYPE_CGROUP_DEVICE)
    attr.u32(4, len(instructions) // 8)
    attr.u64(8, ctypes.addressof(code))
    attr.u64(16, ctypes.addressof(licence))
    # The verifier gives up with EAGAIN where a signal is waiting.
    mask = pthread_sigmask(SIG_BLOCK, valid_signals())
    try:
        return attr.call(PROG_LOAD)
    finally:
        pthread_sigmask(SIG_SETMASK, mask)


def attach_devices(group_fd: int, program_fd: int) -> None:
    """Add a program to those of the group; parents' programs keep counting."""
    _attachment(group_fd, program_fd, F_ALLOW_MULTI).call(PROG_ATTACH)


def replace_devices(group_fd: int, program_fd: int, old_id: int) -> None:
    """Put a program in the place of one attached with F_ALLOW_MULTI, in one step (Linux 5.6)."""
    old_fd = _open_program(old_id)
    try:
        attr = _attachment(group_fd, program_fd, F_ALLOW_MULTI | F_REPLACE)
        attr.u32(16, old_fd)
        attr.call(PROG_ATTACH)
    finally:
        os.close(old_fd)


def detach_devices(group_fd: int, program_id: int) -> None:
    """Take one program off the group."""
    program_fd = _open_program(program_id)
    try:
        _attachment(group_fd, program_fd, 0).call(PROG_DETACH)
    finally:
        os.close(program_fd)


def attached_devices(group_fd: int) -> list[int]:
    """Return the ids of the group's own device programs."""
    ids = (ctypes.c_uint32 * MAX_PROGRAMS)()
    attr = _Attr()
    attr.u32(0, group_fd)
    attr.u32(4, CGROUP_DEVICE)
    attr.u64(16, ctypes.addressof(ids))
    attr.u32(24, MAX_PROGRAMS)
    attr.call(PROG_QUERY)
    return list(ids[: attr.get_u32(24)])


def _open_program(program_id: int) -> int:
    attr = _Attr()
    attr.u32(0, program_id)
    return attr.call(PROG_GET_FD_BY_ID)


def _attachment(group_fd: int, program_fd: int, flags: int) -> _Attr:
    attr = _Attr()
    attr.u32(0, group_fd)
    attr.u32(4, program_fd)
    attr.u32(8, CGROUP_DEVICE)
    attr.u32(12, flags)
    return attr


class _Attr:
    """``union bpf_attr``, zeroed; fields by offset because every command lays it out anew."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_ATTR_BYTES)

    def u32(self, offset: int, value: int) -> None:
        ctypes.c_uint32.from_buffer(self._buffer, offset).value = value

    def u64(self, offset: int, value: int) -> None:
        ctypes.c_uint64.from_buffer(self._buffer, offset).value = value

    def get_u32(self, offset: int) -> int:
        return ctypes.c_uint32.from_buffer(self._buffer, offset).value

    def call(self, command: int) -> int:
        result = _bpf(_number(), command, self._buffer, _ATTR_BYTES)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"bpf command {command}: {os.strerror(code)}")
        return result


def _number() -> int:
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise OSError(38, f"bpf: no system call number known for {machine}")
    return _NUMBERS[machine]


_prototype = ctypes.CFUNCTYPE(
    ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, use_errno=True
)
_bpf: Callable[..., int] = _prototype(("syscall", ctypes.CDLL(None)))
