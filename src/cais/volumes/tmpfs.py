"""Options of tmpfs mounts: ``--tmpfs /run:size=64m,exec`` and ``--mount type=tmpfs``.

Only what tmpfs can have is let through; which of contradicting words counts, and Docker's defaults
beneath them, is decided where the OCI document is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.volumes.errors import InvalidMountError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.spec.container import Mount

_WORDS = frozenset(
    (
        *("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "defaults"),
        *("sync", "async", "dirsync", "mand", "nomand", "atime", "noatime"),
        *("diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
        *("private", "rprivate", "shared", "rshared", "slave", "rslave"),
    )
)
_WITH_VALUE = frozenset({"mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol"})


def parse_options(text: str) -> tuple[str, ...]:
    """Return the options of ``--tmpfs``, in the order given.

    Raises:
        InvalidMountError: an option tmpfs does not have, or must not be given.

    """
    return _checked(text.split(",") if text else ())


def options_of(mount: Mount) -> tuple[str, ...]:
    """Return the options of a checked ``--mount type=tmpfs``.

    Raises:
        InvalidMountError: as ``parse_options``.

    """
    wanted = mount.tmpfs_options
    if wanted is None:
        return ()
    words = [f"mode={wanted.mode:o}"] if wanted.mode else []
    if wanted.size_bytes:
        words.append(f"size={wanted.size_bytes}")
    return _checked([*words, *("=".join(option) for option in wanted.options or ())])


def _checked(words: Iterable[str]) -> tuple[str, ...]:
    for word in words:
        name, equals, value = word.partition("=")
        if not (word in _WORDS or (equals and value and name in _WITH_VALUE)):
            quoted = " ".join(f'"{part}"' for part in word[:128].split("=", 1))
            raise InvalidMountError(f"Invalid tmpfs option [{quoted}]")
    return tuple(words)
