"""The pipes of a process in a user namespace, given to somebody its root may take them from.

The shim makes them as root of the host, who is nobody inside: the program could not open
/dev/stdout, and its root not hand them on to its user.
"""

from __future__ import annotations

import os
import stat

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.launch import Stdio


def parse_owner(value: object) -> tuple[int, int] | None:
    """Read ``streams_owner`` of ``cais.json``: a user and a group of the host, or null."""
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value):
        return value[0], value[1]
    raise InvalidArgumentError("streams_owner is not a user and a group")


def give(stdio: Stdio | None, owner: tuple[int, int] | None) -> None:
    """Make ``owner`` the owner of what is a pipe among the streams; not if there is none."""
    if stdio is None or owner is None:
        return
    for fd in (stdio.stdin, stdio.stdout, stdio.stderr):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, *owner)
