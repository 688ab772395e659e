"""Options of tmpfs mounts: ``--tmpfs /run:size=64m,exec`` and ``--mount type=tmpfs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.volumes.errors import InvalidMountError

if TYPE_CHECKING:
    from cais.spec.container import Mount

_DEFAULTS = ("noexec", "nosuid", "nodev")
_OPPOSITES = {
    "ro": "rw",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "sync": "async",
    "diratime": "nodiratime",
    "atime": "noatime",
    "relatime": "norelatime",
    "strictatime": "nostrictatime",
}
_GROUP_OF = {word: pair for pair in _OPPOSITES.items() for word in pair}
_WITH_VALUE = frozenset({"mode", "uid", "gid", "nr_inodes", "nr_blocks", "size", "mpol"})


def merge_options(text: str) -> tuple[str, ...]:
    """Return the mount options of ``--tmpfs``: Docker's defaults, overridden by the user's.

    Raises:
        InvalidMountError: an option tmpfs does not have, or must not be given.

    """
    return _merge(text.split(",") if text else [])


def options_of(mount: Mount) -> tuple[str, ...]:
    """Return the mount options of a checked ``--mount type=tmpfs``.

    Raises:
        InvalidMountError: as ``merge_options``.

    """
    wanted = mount.tmpfs_options
    words = ["ro"] if mount.read_only else []
    if wanted is not None:
        if wanted.mode:
            words.append(f"mode={wanted.mode:o}")
        if wanted.size_bytes:
            words.append(f"size={wanted.size_bytes}")
        words += ["=".join(option) for option in wanted.options or ()]
    return _merge(words)


def _merge(words: list[str]) -> tuple[str, ...]:
    """Let a later word replace its opposite and an earlier value of its kind."""
    merged: dict[object, str] = {}
    for word in (*_DEFAULTS, *words):
        name, has_value, value = word.partition("=")
        if has_value and name in _WITH_VALUE and value:
            merged[name] = word
        elif not has_value and name in _GROUP_OF:
            merged[_GROUP_OF[name]] = word
        elif word != "defaults":
            raise InvalidMountError(f'invalid tmpfs option "{word}"')
    return tuple(merged.values())
