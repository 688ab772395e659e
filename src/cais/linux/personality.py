"""Execution domains by their OCI names, and the kernel's own names for the flags.

The specification lists no flag yet; the names here are those of <linux/personality.h>.

Spec: personality(2); OCI runtime-spec 1.2, config-linux.md "Personality".
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DOMAINS = {"LINUX": 0, "LINUX32": 8}
FLAGS = {
    "UNAME26": 0x0020000,
    "ADDR_NO_RANDOMIZE": 0x0040000,
    "FDPIC_FUNCPTRS": 0x0080000,
    "MMAP_PAGE_ZERO": 0x0100000,
    "ADDR_COMPAT_LAYOUT": 0x0200000,
    "READ_IMPLIES_EXEC": 0x0400000,
    "ADDR_LIMIT_32BIT": 0x0800000,
    "SHORT_INODE": 0x1000000,
    "WHOLE_SECONDS": 0x2000000,
    "STICKY_TIMEOUTS": 0x4000000,
    "ADDR_LIMIT_3GB": 0x8000000,
}


def parse_personality(domain: str, flags: Iterable[str]) -> int:
    """Return what personality(2) takes.

    Raises:
        InvalidArgumentError: no such domain or flag.

    """
    if domain not in DOMAINS:
        raise InvalidArgumentError(f"invalid personality domain {domain!r:.64}")
    value = DOMAINS[domain]
    for flag in flags:
        if flag not in FLAGS:
            raise InvalidArgumentError(f"unknown personality flag {flag!r:.64}")
        value |= FLAGS[flag]
    return value
