"""The volumes of one data root, as the engine and the API see them.

``local`` keeps them on disk; here are what exists, labels, filters and the rules of removal. Who
uses a volume is the engine's knowledge and comes in as an argument.
"""

import datetime as dt
import secrets
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cais.errors import InvalidArgumentError
from cais.volumes.errors import VolumeDriverNotFoundError, VolumeInUseError, VolumeNotFoundError
from cais.volumes.local import LocalDriver, check_name, check_options

DRIVER = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
Filters = Mapping[str, Collection[str]]
Names = list[str]  # inside VolumeStore, list is the method
_TRUTHS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume. ``created`` is RFC 3339, ``mountpoint`` its data directory."""

    name: str
    mountpoint: str
    created: str
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        """Whether nobody chose the name."""
        return ANONYMOUS_LABEL in self.labels

    def to_docker(self) -> dict[str, Any]:
        """Return the body of ``GET /volumes/{name}``."""
        return {
            "CreatedAt": self.created,
            "Driver": DRIVER,
            "Labels": self.labels or None,
            "Mountpoint": self.mountpoint,
            "Name": self.name,
            "Options": self.options or None,
            "Scope": "local",
        }


class VolumeStore:
    """All volumes of one data root. Thread-safe. Every method Blocks."""

    def __init__(self, data_root: str) -> None:
        """Open ``<data-root>/volumes``, making it if needed."""
        self._driver = LocalDriver(Path(data_root) / "volumes")
        self._lock = threading.Lock()
        self._volumes = {
            name: self._volume(name, record) for name, record in self._driver.records()
        }

    def close(self) -> None:
        """Close what is open."""
        self._driver.close()

    def create(
        self,
        name: str = "",
        *,
        driver: str = DRIVER,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        owner: tuple[int, int] = (0, 0),
    ) -> tuple[Volume, bool]:
        """Find or make a volume; an empty name makes an anonymous one of 64 hex digits.

        As in Docker, an existing volume is returned as it is, whatever labels are asked for.

        Args:
            name: of the volume.
            driver: ``local``, or empty.
            options: of the driver.
            labels: of the volume.
            owner: whose its directory is, a user and a group of the host.

        Returns:
            The volume, durable on disk, and whether it was made now.

        Raises:
            InvalidVolumeNameError: the name's grammar.
            UnsupportedError: driver options.
            VolumeDriverNotFoundError: another driver than ``local``.

        """
        if driver not in {DRIVER, ""}:
            raise VolumeDriverNotFoundError(driver)
        with self._lock:
            if name in self._volumes:
                return self._volumes[name], False
            labels = dict(labels or {})
            if not name:
                name = secrets.token_hex(32)
                labels[ANONYMOUS_LABEL] = ""
            check_name(name)
            check_options(options or {})
            record = {"created": _now(), "labels": labels, "options": dict(options or {})}
            self._driver.create(name, record, owner)
            self._volumes[name] = self._volume(name, record)
            return self._volumes[name], True

    def get(self, name: str) -> Volume:
        """Return a volume.

        Raises:
            VolumeNotFoundError: ``get x: no such volume``.

        """
        with self._lock:
            if name not in self._volumes:
                raise VolumeNotFoundError(name)
            return self._volumes[name]

    def list(self, filters: Filters | None = None, *, in_use: Collection[str] = ()) -> list[Volume]:
        """Return the volumes that pass ``filters`` (name, label, driver, dangling), by name.

        Raises:
            InvalidArgumentError: another filter, or a value ``dangling`` cannot have.

        """
        filters = filters or {}
        _check_filters(filters, {"name", "label", "driver", "dangling"})
        with self._lock:
            volumes = sorted(self._volumes.values(), key=lambda volume: volume.name)
        return [volume for volume in volumes if _passes(volume, filters, in_use)]

    def remove(self, name: str, *, users: Collection[str] = (), force: bool = False) -> None:
        """Remove a volume and its data.

        Raises:
            VolumeInUseError: ``users`` (container ids) is not empty.
            VolumeNotFoundError: unknown, and not ``force``.

        """
        with self._lock:
            if name not in self._volumes:
                if force:
                    return
                raise VolumeNotFoundError(name)
            if users:
                raise VolumeInUseError(name, users)
            self._driver.remove(name)
            del self._volumes[name]

    def prune(
        self, filters: Filters | None = None, *, in_use: Collection[str] = ()
    ) -> tuple[Names, int]:
        """Remove unused volumes (anonymous ones; all with filter ``all=true``).

        Returns:
            Names removed and bytes freed.

        Raises:
            InvalidArgumentError: a filter other than label, label! and all.

        """
        filters = filters or {}
        _check_filters(filters, {"label", "label!", "all"})
        everything = _truth(filters, "all") or False
        chosen = {name: values for name, values in filters.items() if name != "all"}
        removed, freed = [], 0
        for volume in self.list():
            if volume.name in in_use or not (everything or volume.anonymous):
                continue
            if _passes(volume, chosen, in_use):
                freed += self.usage(volume.name)
                self.remove(volume.name, force=True)
                removed.append(volume.name)
        return removed, freed

    def usage(self, name: str) -> int:
        """Return the bytes a volume has on the disk. VolumeNotFoundError: there is none."""
        self.get(name)
        return self._driver.usage(name)

    def _volume(self, name: str, record: Mapping[str, Any]) -> Volume:
        return Volume(
            name=name,
            mountpoint=self._driver.mountpoint(name),
            created=record.get("created", ""),
            labels=dict(record.get("labels") or {}),
            options=dict(record.get("options") or {}),
        )


def _passes(volume: Volume, filters: Filters, in_use: Collection[str]) -> bool:
    names, drivers = filters.get("name", ()), filters.get("driver", ())
    dangling = _truth(filters, "dangling")
    return (
        (not names or any(part in volume.name for part in names))
        and (not drivers or DRIVER in drivers)
        and (dangling is None or dangling != (volume.name in in_use))
        and all(_has_label(volume, label) for label in filters.get("label", ()))
        and not any(_has_label(volume, label) for label in filters.get("label!", ()))
    )


def _has_label(volume: Volume, wanted: str) -> bool:
    key, has_value, value = wanted.partition("=")
    return key in volume.labels and (not has_value or volume.labels[key] == value)


def _check_filters(filters: Filters, known: Collection[str]) -> None:
    for name in filters:
        if name not in known:
            raise InvalidArgumentError(f"invalid filter '{name}'")
    for name in ("dangling", "all"):
        _truth(filters, name)


def _truth(filters: Filters, name: str) -> bool | None:
    """Return the value of a filter that is true or false, None when it is not given."""
    values = {_TRUTHS.get(value.lower()) for value in filters.get(name, ())}
    if not values:
        return None
    if len(values) > 1 or None in values:
        raise InvalidArgumentError(f"invalid filter '{name}=[{' '.join(filters[name])}]'")
    return values.pop()


def _now() -> str:
    return dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
