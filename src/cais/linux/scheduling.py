"""The scheduling policy of a process, and the memory nodes it takes its pages from.

Imported only where a document asks for one of the two.

Spec: sched_setattr(2), sched(7); set_mempolicy(2), numa(7); the values are those of
<linux/sched.h> and <linux/mempolicy.h>.
"""

from __future__ import annotations

import ctypes

from cais.linux.syscalls import Long, Pointer, ULong, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,  # reserved: no kernel has it, and each says so
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
POLICY_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
MAX_NODES = 1024  # the largest MAX_NUMNODES of any architecture; the kernel reads no further
_BITS_OF_LONG = 8 * ctypes.sizeof(ctypes.c_ulong)


class SchedulingAttributes(ctypes.Structure):
    """``struct sched_attr``, without the utilization clamps that no OCI document can give."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


_sched_setattr = system_call("sched_setattr", Long, Pointer, ULong)
_set_mempolicy = system_call("set_mempolicy", Long, Pointer, ULong)


def set_scheduling(pid: int, attributes: SchedulingAttributes) -> None:
    """Set policy and parameters of ``pid`` (0: the caller).

    Raises:
        KernelError: EPERM, a real-time policy or a lower nice value without CAP_SYS_NICE;
            EINVAL, parameters the policy does not take; EBUSY, no bandwidth left for a deadline.

    """
    attributes.size = ctypes.sizeof(attributes)
    _sched_setattr(pid, ctypes.addressof(attributes), 0)


def set_memory_policy(mode: int, nodes: Iterable[int]) -> None:
    """Set where the caller's new pages come from; children and execve keep it.

    Args:
        mode: one of MEMORY_MODES, with MEMORY_FLAGS.
        nodes: numbers below MAX_NODES; empty for the modes that take none.

    Raises:
        KernelError: EINVAL, a node that is not there or not allowed here, or a mode and nodes
            that do not go together; ENOSYS, a kernel without NUMA.

    """
    words = (ctypes.c_ulong * (MAX_NODES // _BITS_OF_LONG))()
    numbers = list(nodes)
    for number in numbers:
        words[number // _BITS_OF_LONG] |= 1 << number % _BITS_OF_LONG
    mask = ctypes.addressof(words) if numbers else None
    # The kernel takes one bit less than it is told.
    _set_mempolicy(mode, mask, MAX_NODES + 1 if numbers else 0)
