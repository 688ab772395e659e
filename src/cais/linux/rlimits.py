"""Resource limits by their OCI names, clamped where this host forbids raising.

Without CAP_SYS_RESOURCE a hard limit can only go down. Docker's defaults ask for more than such a
host allows, and an engine that therefore refused every container would help nobody.

Spec: setrlimit(2).
"""

from __future__ import annotations

import resource

NAMES = {
    name: getattr(resource, name)
    for name in (
        "RLIMIT_AS",
        "RLIMIT_CORE",
        "RLIMIT_CPU",
        "RLIMIT_DATA",
        "RLIMIT_FSIZE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_NOFILE",
        "RLIMIT_NPROC",
        "RLIMIT_RSS",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
        "RLIMIT_SIGPENDING",
        "RLIMIT_STACK",
    )
    if hasattr(resource, name)
}
NAMES.setdefault("RLIMIT_LOCKS", 10)  # meaningless since Linux 2.4.25, still in documents
_UNLIMITED = 0xFFFFFFFFFFFFFFFF


def apply(name: str, soft: int, hard: int) -> str | None:
    """Set one limit of this process; return a warning when it had to be lowered.

    Args:
        name: ``RLIMIT_*``, a key of ``NAMES``.
        soft: 2**64-1 for no limit.
        hard: 2**64-1 for no limit.

    """
    number = NAMES[name]
    try:
        _set(number, soft, hard)
    except (ValueError, PermissionError):  # ValueError is setrlimit's EPERM in CPython
        allowed = resource.getrlimit(number)[1] & _UNLIMITED
        clamped = (min(soft, allowed), min(hard, allowed))
        _set(number, *clamped)
        return (
            f"{name}: {_text(soft, hard)} was lowered to {_text(*clamped)}: "
            "raising the host's hard limit needs CAP_SYS_RESOURCE"
        )
    return None


def _set(number: int, soft: int, hard: int) -> None:
    """Call setrlimit(2), whose numbers are signed in Python and -1 is no limit."""
    signed = [value - (value >> 63 << 64) for value in (soft, hard)]
    resource.setrlimit(number, (signed[0], signed[1]))


def _text(*limits: int) -> str:
    return ":".join("unlimited" if n == _UNLIMITED else str(n) for n in limits)
