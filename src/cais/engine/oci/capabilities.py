"""Docker's capability rules: 14 by default, CapAdd and CapDrop with ``ALL``.

Spec: capabilities(7); SECURITY.md 3.1. Inheritable and ambient sets stay empty (CVE-2022-24769).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.engine.oci.host import Host

# In the order of their numbers.
NAMES = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID"),
        *("SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST"),
        *("NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO"),
        *("SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE"),
        *("AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM"),
        *("BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
    )
)
DEFAULT = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID"),
        *("SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL"),
        "AUDIT_WRITE",
    )
)
ALL = "ALL"


def available(host: Host) -> tuple[str, ...]:
    """Return the capabilities a container can be given here at all."""
    return tuple(
        name
        for number, name in enumerate(NAMES)
        if number <= host.last_capability and host.capabilities >> number & 1
    )


def normalize(names: Iterable[str], host: Host, field: str) -> list[str]:
    """Return ``CAP_X`` for ``x``, ``cap_x`` and ``X``; ``ALL`` stays.

    Raises:
        InvalidArgumentError: Docker's text, ``invalid CapAdd: unknown capability: "CAP_X"``.

    """
    present = available(host)
    normal = []
    for name in names:
        upper = name.upper()
        if upper != ALL and not upper.startswith("CAP_"):
            upper = f"CAP_{upper}"
        if upper != ALL and upper not in NAMES:
            raise InvalidArgumentError(f'invalid {field}: unknown capability: "{upper[:64]}"')
        if upper != ALL and upper not in present:
            raise InvalidArgumentError(
                f"invalid {field}: capability not supported by your kernel or not available in "
                f'the current environment: "{upper}"'
            )
        normal.append(upper)
    return normal


def granted(
    adds: Iterable[str], drops: Iterable[str], host: Host, *, privileged: bool
) -> list[str]:
    """Return the container's set.

    Privileged means everything that is available. ``--cap-add ALL`` beats ``--cap-drop ALL``.
    A default capability the daemon itself lacks is left out, not an error.

    Raises:
        InvalidArgumentError: an unknown or unavailable capability.

    """
    present = available(host)
    if privileged:
        return list(present)
    added, dropped = normalize(adds, host, "CapAdd"), normalize(drops, host, "CapDrop")
    if ALL in added:
        return [name for name in present if name not in dropped]
    kept = [] if ALL in dropped else [name for name in DEFAULT if name not in dropped]
    wanted = dict.fromkeys([*kept, *(name for name in added if name != ALL)])
    return [name for name in wanted if name in present]


def document(names: list[str]) -> dict[str, list[str]]:
    """Return ``process.capabilities``: bounding, permitted and effective alone."""
    return {"bounding": names, "permitted": names, "effective": names}


def mask(names: Iterable[str]) -> int:
    """Return the set as /proc/<pid>/status shows it."""
    return sum(1 << NAMES.index(name) for name in set(names))
