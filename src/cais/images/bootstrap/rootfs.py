"""What of a freshly installed system belongs into an image, so that the same packages give it.

A tree of files is made by packages and by what they run while they are installed. What that
leaves behind of the machine and the moment (logs, caches, locks, backups, the host's name) is left
out, and times of what no package brought are those of the newest file that one did. Directories
have that time too: theirs tell the order of installation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from cais.images import tar_writer
from cais.images.tar import DIRECTORY, REGULAR, TarReader
from cais.images.tar_headers import member_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.images.tar import Entry

_LEFT_OUT = re.compile(
    r"""
    dev/.+ | run/.+ | tmp/.+ | proc/.+ | sys/.+
    | etc/(?:hostname | resolv\.conf | machine-id | \.pwd\.lock | mtab)
    | etc/(?:passwd | group | shadow | gshadow | subuid | subgid)-
    | etc/apt/apt\.conf\.d/99mmdebstrap | etc/apt/preferences\.d/cais-lock
    | var/cache/(?:apt/.+ | ldconfig/.+ | debconf/.+-old) | var/lib/apt/lists/.+
    | var/lib/dbus/machine-id | var/lib/dpkg/.+-old | var/lib/dpkg/lock.* | var/lib/dpkg/updates/.+
    | var/lib/systemd/random-seed | var/log/.+ | var/tmp/.+
    """,
    re.VERBOSE,
).fullmatch
_KEPT_DIRECTORIES = re.compile(
    r"var/log/apt|var/cache/apt/archives(?:/partial)?|run/lock"
).fullmatch
_SHADOW = "etc/shadow"
_DAY_S = 86_400


def newest_time(rootfs: BinaryIO, began: int) -> int:
    """Return the time of the newest file a package brought, in seconds since 1970.

    Args:
        rootfs: the installed system, a tar; read from its start.
        began: when its installation began: whatever is as new was made by it.

    """
    rootfs.seek(0)
    times = (
        entry.mtime_ns // 1_000_000_000
        for entry in TarReader(rootfs)
        if entry.kind == REGULAR and not _LEFT_OUT(_name(entry))
    )
    return max((time for time in times if time < began), default=0)


def reproducible(rootfs: BinaryIO, newest: int) -> Iterator[bytes]:
    """Yield the layer: what ``rootfs`` holds, without what it owes to place and time.

    Args:
        rootfs: as for ``newest_time``.
        newest: its result.

    """
    rootfs.seek(0)
    reader = TarReader(rootfs)
    for entry in reader:
        entry.name = _name(entry)
        is_directory = entry.kind == DIRECTORY
        if _LEFT_OUT(entry.name):
            if not (is_directory and _KEPT_DIRECTORIES(entry.name)):
                continue
            entry.uid = entry.gid = 0  # apt's own, where its user could reach the directory
        entry.mtime_ns = min(entry.mtime_ns, newest * 1_000_000_000)
        if is_directory:
            entry.name, entry.mtime_ns = entry.name or ".", newest * 1_000_000_000
        if entry.name == _SHADOW:
            yield from _shadow(entry, reader, newest)
        else:
            yield from _copy(entry, reader)
    yield tar_writer.END


def _copy(entry: Entry, reader: TarReader) -> Iterator[bytes]:
    size = entry.size if entry.kind == REGULAR else 0
    yield member_header(entry)
    while chunk := reader.read(size):
        yield bytes(chunk)
    yield tar_writer.padding(size)


def _shadow(entry: Entry, reader: TarReader, newest: int) -> Iterator[bytes]:
    """The third field of each line is the day of the last change: that of the installation."""
    content = bytearray()
    while chunk := reader.read(entry.size):
        content += chunk
    day = str(newest // _DAY_S).encode()
    lines = [line.split(b":") for line in bytes(content).splitlines()]
    text = b"".join(b":".join([*line[:2], day, *line[3:]]) + b"\n" for line in lines)
    entry.size = len(text)
    yield member_header(entry)
    yield text + tar_writer.padding(len(text))


def _name(entry: Entry) -> str:
    return entry.name.removeprefix("./").strip("/")
