"""Named volumes: what exists, labels, and the data directory of each.

    <data-root>/volumes/<name>/_data          mounted into containers
    <data-root>/volumes/<name>/volume.json    the record: written beside, fsynced, renamed

A volume exists when its record does: the directory is made complete under a dot name and renamed
into place; removal renames it back to a dot name first. What a crash leaves are dot names, which
``VolumeStore`` removes when it starts. Changing the record's fields needs a ``version`` bump.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. ``created`` is RFC 3339; ``anonymous`` = nobody chose the name."""

    name: str
    mountpoint: str
    created: str
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False

    def to_docker(self) -> dict[str, Any]:
        """Return the body of ``GET /volumes/{name}``."""
        raise NotImplementedError


class VolumeStore:
    """All volumes of one data root. Thread-safe. Every method Blocks."""

    def __init__(self, data_root: str) -> None:
        raise NotImplementedError

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> tuple[Volume, bool]:
        """Find or make a volume; an empty name makes an anonymous one of 64 hex digits.

        Returns:
            The volume, durable on disk, and whether it was made now.

        Raises:
            InvalidArgumentError: the name's grammar; ConflictError: it exists with other options;
            UnsupportedError: driver options; NotFoundError: another driver than ``local``.

        """
        raise NotImplementedError

    def get(self, name: str) -> Volume:
        """Return a volume or raise VolumeNotFoundError (``get x: no such volume``)."""
        raise NotImplementedError

    def list(
        self, filters: Mapping[str, Collection[str]] | None = None, *, in_use: Collection[str] = ()
    ) -> list[Volume]:
        """Return the volumes that pass ``filters`` (name, label, driver, dangling)."""
        raise NotImplementedError

    def remove(self, name: str, *, users: Collection[str] = (), force: bool = False) -> None:
        """Remove a volume and its data.

        Raises:
            VolumeInUseError: ``users`` (container ids) is not empty.
            VolumeNotFoundError: unknown, and not ``force``.

        """
        raise NotImplementedError

    def prune(
        self,
        filters: Mapping[str, Collection[str]] | None = None,
        *,
        in_use: Collection[str] = (),
    ) -> tuple[list[str], int]:
        """Remove unused volumes (anonymous ones; all with filter ``all=1``).

        Returns:
            Names removed and bytes freed.

        """
        raise NotImplementedError

    def usage(self, name: str) -> int:
        """Return the bytes a volume takes on disk."""
        raise NotImplementedError
