"""From what a container asks for to its mount points: binds, volumes, tmpfs.

In this order, later ones taking a destination over from earlier ones: VolumesFrom, HostConfig.Binds
and HostConfig.Mounts (together no destination twice, nor one of HostConfig.Tmpfs), and for what is
still free Config.Volumes and the image's VOLUMEs as anonymous volumes. ``bindspec`` reads the
text form, ``mountspec`` checks the structured one.

Everything is checked before the first volume is made.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError
from cais.volumes import bindspec, mountspec, tmpfs
from cais.volumes.errors import InvalidMountError

if TYPE_CHECKING:
    from cais.spec.container import HostConfig, Mount

_SPECIAL = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One mount of a container, as the engine stores it and the OCI document needs it.

    Attributes:
        type: ``bind``, ``volume`` or ``tmpfs``.
        source: host path for bind and volume (``.../_data``); empty for tmpfs.
        destination: absolute, clean path in the container.
        name: volume name, else empty. driver: ``local`` for volumes, else empty.
        mode: as written in Binds (``ro,z``), shown by inspect.
        options: further OCI mount options (tmpfs size and mode, ``noexec``...).
        recursive: False = ``bind`` instead of ``rbind``. read_only_recursive: also submounts.
        copy_up: fill the volume from the image while it is empty.
        subpath: directory inside the volume to mount, resolved in the volume's root.
        create_source: make a missing ``source`` directory when the container starts.
        is_listed: shown by inspect; False for HostConfig.Tmpfs.

    """

    type: str
    source: str
    destination: str
    rw: bool = True
    propagation: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    options: tuple[str, ...] = ()
    recursive: bool = True
    read_only_recursive: bool = False
    copy_up: bool = False
    subpath: str = ""
    create_source: bool = False
    is_listed: bool = True

    def to_docker(self) -> dict[str, Any]:
        """Return the entry of ``Mounts`` in container inspect."""
        document: dict[str, Any] = {"Type": self.type}
        if self.name:
            document["Name"] = self.name
        document |= {"Source": self.source, "Destination": self.destination}
        if self.driver:
            document["Driver"] = self.driver
        return document | {"Mode": self.mode, "RW": self.rw, "Propagation": self.propagation}


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A volume a container needs: ``name`` empty = anonymous (the callee invents one)."""

    name: str
    driver: str = "local"
    options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None


CreateVolume = Callable[[VolumeRequest], tuple[str, str]]
"""Finds or makes a volume; returns its name and mountpoint. Called after all validation."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A mount point, and the volume it still lacks."""

    point: MountPoint
    request: VolumeRequest | None = None


def resolve_mounts(
    *,
    volumes: Mapping[str, Any] | None,
    host_config: HostConfig,
    image_volumes: Mapping[str, Any] | None,
    create_volume: CreateVolume,
    volumes_from: Callable[[str], list[MountPoint]],
) -> list[MountPoint]:
    """Validate everything first, then make the volumes, then return the mounts.

    Args:
        volumes: Config.Volumes of the create request (not merged with the image's).
        host_config: ``Binds``, ``Mounts``, ``Tmpfs``, ``VolumesFrom``, ``VolumeDriver``.
        volumes_from: gives the mount points of a container by name or id.

    Returns:
        In mounting order: by depth of destination.

    Raises:
        InvalidMountError: with Docker's text.

    """
    planned = {
        point.destination: _Planned(point)
        for reference in host_config.volumes_from or ()
        for point in _taken_over(reference, volumes_from)
    }
    planned |= _asked_for(host_config)
    for destination in _anonymous(volumes, image_volumes):
        if destination not in planned:
            point = MountPoint("volume", "", destination, driver="local", copy_up=True)
            request = VolumeRequest("", host_config.volume_driver or "local")
            planned[destination] = _Planned(point, request)
    made = [_with_volume(each, create_volume) for each in planned.values()]
    return sorted(made, key=lambda point: (point.destination.count("/"), point.destination))


def make_sources(points: Iterable[MountPoint], owner: tuple[int, int] | None = None) -> None:
    """Make the host directories that binds of the ``-v`` form may lack; for every start.

    Args:
        points: the container's.
        owner: whose they become, with the directories above that are made.

    Raises:
        InvalidMountError: another bind's source is gone, or one cannot be made.

    """
    for point in points:
        if point.type != "bind" or os.path.lexists(point.source):
            continue
        if not point.create_source:
            raise mountspec.invalid("bind", f"bind source path does not exist: {point.source}")
        try:
            _make_directories(point.source, owner)
        except OSError as exc:
            raise InvalidMountError(
                f"error while creating mount source path '{point.source}': {exc.strerror}"
            ) from exc


def _make_directories(path: str, owner: tuple[int, int] | None) -> None:
    parent = os.path.dirname(path)
    if not os.path.exists(parent):
        with contextlib.suppress(FileExistsError):  # by somebody else, just now
            _make_directories(parent, owner)
    os.mkdir(path, 0o755)
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def _asked_for(host_config: HostConfig) -> dict[str, _Planned]:
    """Return what Binds, Mounts and Tmpfs say, by destination."""
    planned: dict[str, _Planned] = {}
    for destination, options in (host_config.tmpfs or {}).items():
        mountspec.check_destination(destination, "tmpfs")
        point = MountPoint(
            "tmpfs",
            "",
            posixpath.normpath(destination),
            options=tmpfs.parse_options(options),
            is_listed=False,
        )
        planned[point.destination] = _Planned(point)
    driver = host_config.volume_driver or "local"
    specified = [_from_bind(text, driver) for text in host_config.binds or ()]
    specified += [_from_mount(mount) for mount in host_config.mounts or ()]
    for each in specified:
        if each.point.destination in planned:
            raise InvalidMountError(f"Duplicate mount point: {each.point.destination}")
        planned[each.point.destination] = each
    return planned


def _from_bind(text: str, driver: str) -> _Planned:
    spec = bindspec.parse_bind(text)
    if spec.is_volume:
        point = MountPoint(
            "volume",
            "",
            spec.destination,
            rw=spec.rw,
            propagation=spec.propagation,
            name=spec.source,
            driver=driver,
            mode=spec.mode or "z",
            copy_up=not spec.no_copy,
        )
        return _Planned(point, VolumeRequest(spec.source, driver))
    point = MountPoint(
        "bind",
        spec.source,
        spec.destination,
        rw=spec.rw,
        propagation=spec.propagation or "rprivate",
        mode=spec.mode,
        read_only_recursive=not spec.rw,
        create_source=True,
    )
    return _Planned(point)


def _from_mount(mount: Mount) -> _Planned:
    mountspec.check_mount(mount)
    destination = posixpath.normpath(mount.target)
    if mount.type == "tmpfs":
        options = tmpfs.options_of(mount)
        return _Planned(
            MountPoint("tmpfs", "", destination, rw=not mount.read_only, options=options)
        )
    if mount.type == "bind":
        return _Planned(_bind_point(mount, destination))
    wanted = mount.volume_options
    config = wanted.driver_config if wanted else None
    driver = (config.name if config else "") or "local"
    point = MountPoint(
        "volume",
        "",
        destination,
        rw=not mount.read_only,
        name=mount.source,
        driver=driver,
        mode="z",
        copy_up=not (wanted and wanted.no_copy),
        subpath=wanted.subpath if wanted else "",
    )
    request = VolumeRequest(
        mount.source,
        driver,
        options=config.options if config else None,
        labels=wanted.labels if wanted else None,
    )
    return _Planned(point, request)


def _bind_point(mount: Mount, destination: str) -> MountPoint:
    wanted = mount.bind_options
    return MountPoint(
        "bind",
        posixpath.normpath(mount.source),
        destination,
        rw=not mount.read_only,
        propagation=(wanted.propagation if wanted else "") or "rprivate",
        recursive=not (wanted and wanted.non_recursive),
        read_only_recursive=mount.read_only and not (wanted and wanted.read_only_non_recursive),
        create_source=bool(wanted and wanted.create_mountpoint),
    )


def _taken_over(
    reference: str, volumes_from: Callable[[str], list[MountPoint]]
) -> Iterable[MountPoint]:
    container, rw = bindspec.parse_volumes_from(reference)
    for point in volumes_from(container):
        if point.type != "tmpfs":
            yield replace(point, rw=point.rw and rw, copy_up=False)


def _anonymous(
    volumes: Mapping[str, Any] | None, image_volumes: Mapping[str, Any] | None
) -> list[str]:
    """Return the clean destinations of anonymous volumes.

    An image's are below the root even if they are written without it. It may not put one over
    what the engine provides (CVE-2019-16884); what a user asks for there the runtime refuses when
    it mounts.
    """
    found = []
    for destination in image_volumes or {}:
        clean = mountspec.check_destination(f"/{destination}", "volume")
        if any(clean == special or clean.startswith(f"{special}/") for special in _SPECIAL):
            raise InvalidMountError(
                f"invalid volume specification: '{destination}': an image may not declare a volume "
                "below /proc, /sys or /dev"
            )
        found.append(clean)
    found += [bindspec.parse_destination(destination) for destination in volumes or {}]
    return list(dict.fromkeys(found))


def _with_volume(planned: _Planned, create_volume: CreateVolume) -> MountPoint:
    if planned.request is None:
        return planned.point
    name, mountpoint = create_volume(planned.request)
    if not name:
        raise InvalidArgumentError("a volume without a name")
    return replace(planned.point, name=name, source=mountpoint)
