"""Names of a layer's entries, and what is said when one of them cannot be unpacked."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError, InternalError, InvalidArgumentError

if TYPE_CHECKING:
    from cais.errors import CaisError

_ARCHIVE_FAULTS = frozenset(
    {
        errno.ENAMETOOLONG, errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
        errno.EPERM, errno.ENOENT, errno.EFBIG, errno.EMLINK, errno.E2BIG, errno.ERANGE,
        errno.EILSEQ, errno.EOVERFLOW,
    }
)  # fmt: skip


class InvalidLayerError(InvalidArgumentError):
    """An entry of the layer cannot be unpacked; the message names it."""

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"layer entry {_shown(name)}: {fault}")


def split_name(name: str) -> tuple[str, str]:
    """Clean a name of the archive: its directory and last component, both inside the root.

    Raises:
        InvalidLayerError: a relative name that leads out of the archive.

    """
    components: list[str] = []
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            components.append(part)
        elif components:
            components.pop()
        elif not name.startswith("/"):
            raise InvalidLayerError(name, "leads out of the archive")
    if not components:
        return "", ""
    return "/".join(components[:-1]), components[-1]


def failure_at(name: str, exc: OSError) -> CaisError:
    """Say whose fault it was that an entry could not be made: archive, space, or the disk."""
    if exc.errno in _ARCHIVE_FAULTS:
        return InvalidLayerError(name, os.strerror(exc.errno))
    step = f"layer entry {_shown(name)}: {exc.strerror}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExhaustedError(step.lower())
    return InternalError(step)


def _shown(name: str) -> str:
    return repr(name[:200])
