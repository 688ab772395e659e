"""From what a container asks for to its mount points: binds, volumes, tmpfs.

Sources, the later ones giving way to the earlier at the same destination: HostConfig.Mounts and
HostConfig.Binds (together no destination twice), HostConfig.Tmpfs, VolumesFrom, Config.Volumes
(anonymous volumes; the image's VOLUMEs are merged in there when the container is created).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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
        copy_up: fill the volume from the image when it is new and empty.
        subpath: directory inside the volume to mount, resolved in the volume's root.

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

    def to_docker(self) -> dict[str, Any]:
        """Return the entry of ``Mounts`` in container inspect."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class VolumeRequest:
    """A volume a container needs: ``name`` empty = anonymous (the callee invents one)."""

    name: str
    driver: str = "local"
    options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None


CreateVolume = Callable[[VolumeRequest], tuple[str, str]]
"""Finds or makes a volume; returns its name and mountpoint. Called after all validation."""


def resolve_mounts(
    *,
    volumes: Mapping[str, Any] | None,
    host_config: Any,
    image_volumes: Mapping[str, Any] | None,
    create_volume: CreateVolume,
    volumes_from: Callable[[str], list[MountPoint]],
) -> list[MountPoint]:
    """Validate everything first, then make the volumes, then return the mounts.

    Args:
        volumes: Config.Volumes of the create request (not merged with the image's).
        host_config: ``Binds``, ``Mounts``, ``Tmpfs``, ``VolumesFrom``, ``VolumeDriver``
            (``spec.container.HostConfig``).
        volumes_from: gives the mount points of a container by name or id.

    Returns:
        In mounting order: by depth of destination.

    Raises:
        InvalidArgumentError: with Docker's text.

    """
    raise NotImplementedError
