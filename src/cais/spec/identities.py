"""How the users and groups of a container are those of the host, for a user namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

Lines = tuple[tuple[int, int, int], ...]
"""The first id inside, the first one outside, and how many; as in /proc/<pid>/uid_map."""

UNMAPPED = 65534
"""What the kernel shows of an id that has no counterpart."""


@dataclass(frozen=True, slots=True)
class IdentityMaps:
    """The maps of a user namespace. Both have an id 0 inside: its root."""

    uid: Lines
    gid: Lines

    @property
    def root(self) -> tuple[int, int]:
        """Who root is on the host."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return who a user and a group of the container are on the host.

        Raises:
            InvalidArgumentError: one of them has no counterpart; Docker's text.

        """
        return _outside(self.uid, uid), _outside(self.gid, gid)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return who a user and a group of the host are in the container; perhaps ``UNMAPPED``."""
        return _inside(self.uid, uid), _inside(self.gid, gid)

    def document(self) -> Mapping[str, list[list[int]]]:
        """Return both as JSON has them: ``{"uid": [[inside, outside, count]], "gid": ...}``."""
        return {"uid": [list(line) for line in self.uid], "gid": [list(line) for line in self.gid]}


def _outside(lines: Lines, number: int) -> int:
    for inside, outside, count in lines:
        if inside <= number < inside + count:
            return outside + number - inside
    raise InvalidArgumentError(f"Container ID {number} cannot be mapped to a host ID")


def _inside(lines: Lines, number: int) -> int:
    for inside, outside, count in lines:
        if outside <= number < outside + count:
            return inside + number - outside
    return UNMAPPED
