"""The structured form of mounts (``--mount``): what may stand together, in Docker's words.

Spec: Docker Engine API 1.51, definition Mount.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from cais.volumes.errors import InvalidMountError
from cais.volumes.local import check_name

if TYPE_CHECKING:
    from cais.spec.container import Mount

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_OPTIONS_OF = {
    "BindOptions": ("bind_options", "bind"),
    "VolumeOptions": ("volume_options", "volume"),
    "TmpfsOptions": ("tmpfs_options", "tmpfs"),
    "ImageOptions": ("image_options", "image"),
}


def invalid(kind: str, why: str) -> InvalidMountError:
    """Return the failure of a mount of this type."""
    return InvalidMountError(f'invalid mount config for type "{kind}": {why}')


def check_destination(path: str, kind: str | None) -> str:
    """Return a destination in clean form.

    Args:
        kind: mount type named in the error; None: the bare reason.

    Raises:
        InvalidMountError: it is not absolute, is the root, or no path at all.

    """
    why = ""
    if not path.startswith("/"):
        why = f"invalid mount path: '{path}' mount path must be absolute"
    elif "\0" in path:
        why = "invalid mount path: it holds a NUL character"
    elif (clean := posixpath.normpath("/" + path.lstrip("/"))) != "/":
        return clean
    else:
        why = "invalid specification: destination can't be '/'"
    raise InvalidMountError(why) if kind is None else invalid(kind, why)


def check_mount(mount: Mount) -> None:
    """Refuse a mount that makes no sense.

    Raises:
        InvalidMountError: with Docker's text.
        InvalidVolumeNameError: a volume's name.

    """
    kind = mount.type
    if kind not in {"bind", "volume", "tmpfs"}:
        known = kind in {"image", "cluster", "npipe"}
        raise invalid(kind, "not supported by this version" if known else "mount type unknown")
    if not mount.target:
        raise invalid(kind, "field Target must not be empty")
    check_destination(mount.target, kind)
    for field, (attribute, owner) in _OPTIONS_OF.items():
        if owner != kind and getattr(mount, attribute) is not None:
            raise invalid(kind, f"field {field} must not be specified")
    {"bind": _check_bind, "volume": _check_volume, "tmpfs": _check_tmpfs}[kind](mount)


def _check_bind(mount: Mount) -> None:
    options = mount.bind_options
    if not mount.source:
        raise invalid("bind", "field Source must not be empty")
    if options is not None:
        if options.propagation and options.propagation not in PROPAGATIONS:
            raise invalid("bind", f"invalid propagation mode: {options.propagation}")
        if options.read_only_non_recursive and options.read_only_force_recursive:
            raise invalid(
                "bind", "ReadOnlyForceRecursive and ReadOnlyNonRecursive must not both be set"
            )
        if options.read_only_force_recursive and not mount.read_only:
            raise invalid("bind", "ReadOnlyForceRecursive must only be set on a read-only mount")
    if not mount.source.startswith("/"):
        raise invalid("bind", f"invalid mount path: '{mount.source}' mount path must be absolute")
    creates = options is not None and options.create_mountpoint
    if "\0" in mount.source or not (creates or os.path.lexists(mount.source)):
        raise invalid("bind", f"bind source path does not exist: {mount.source}")


def _check_volume(mount: Mount) -> None:
    options = mount.volume_options
    if mount.source:
        check_name(mount.source)
    elif mount.read_only:
        raise invalid("volume", "must not set ReadOnly mode when using anonymous volumes")
    subpath = options.subpath if options else ""
    if subpath and (subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath):
        raise invalid("volume", "subpath must be a relative path within the volume")


def _check_tmpfs(mount: Mount) -> None:
    options = mount.tmpfs_options
    if mount.source:
        raise invalid("tmpfs", "field Source must not be specified")
    if options is not None and options.size_bytes < 0:
        raise invalid("tmpfs", f"invalid tmpfs size: {options.size_bytes}")
