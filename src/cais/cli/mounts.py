"""The forms of ``--volume``, ``--mount`` and ``--device``."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError
from cais.spec.units import ram_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

Document = dict[str, Any]

_NAMES = {
    "type": "Type",
    "source": "Source",
    "src": "Source",
    "target": "Target",
    "dst": "Target",
    "destination": "Target",
    "readonly": "ReadOnly",
    "ro": "ReadOnly",
    "consistency": "Consistency",
}
# Key to (options object, field, how its value is read).
_OPTIONS: dict[str, tuple[str, str]] = {
    "bind-propagation": ("BindOptions", "Propagation"),
    "bind-nonrecursive": ("BindOptions", "NonRecursive"),
    "bind-create-src": ("BindOptions", "CreateMountpoint"),
    "volume-nocopy": ("VolumeOptions", "NoCopy"),
    "volume-subpath": ("VolumeOptions", "Subpath"),
    "volume-label": ("VolumeOptions", "Labels"),
    "volume-driver": ("VolumeOptions", "DriverConfig"),
    "tmpfs-size": ("TmpfsOptions", "SizeBytes"),
    "tmpfs-mode": ("TmpfsOptions", "Mode"),
}
_SWITCHES = {"ReadOnly", "NonRecursive", "CreateMountpoint", "NoCopy"}


def split_volumes(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return ``--volume`` values as binds (their sources absolute) and anonymous volumes."""
    binds, anonymous = [], []
    for word in words:
        source, separator, rest = word.partition(":")
        if not separator:
            anonymous.append(word)
            continue
        if source.startswith((".", "~")):
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def parse_mount(text: str) -> Document:
    """Return the mount ``type=bind,source=/a,target=/b,readonly`` means.

    Raises:
        InvalidArgumentError: an unknown key, or no target.

    """
    mount: Document = {"Type": "volume"}
    for item in next(csv.reader([text])):
        key, separator, value = item.partition("=")
        key = key.strip().lower()
        if key in _NAMES:
            mount[_NAMES[key]] = _read(_NAMES[key], value, separator)
        elif key in _OPTIONS:
            group, field = _OPTIONS[key]
            options = mount.setdefault(group, {})
            _set(options, field, _read(field, value, separator))
        else:
            raise InvalidArgumentError(f"unexpected key '{key}' in '{item}'")
    if not mount.get("Target"):
        raise InvalidArgumentError("target is required")
    if mount["Type"] == "bind" and str(mount.get("Source", "")).startswith("."):
        mount["Source"] = os.path.abspath(mount["Source"])
    return mount


def _read(field: str, value: str, separator: str) -> object:
    if field in _SWITCHES:
        return not separator or value.lower() in ("true", "1")
    if field == "SizeBytes":
        return ram_bytes(value)
    if field == "Mode":
        return int(value, 8)
    if field == "Labels":
        key, _, label = value.partition("=")
        return {key: label}
    return {"Name": value} if field == "DriverConfig" else value


def _set(options: Document, field: str, value: object) -> None:
    if field == "Labels" and isinstance(value, dict):
        options.setdefault(field, {}).update(value)
    else:
        options[field] = value


def parse_device(text: str) -> Document:
    """Return the device ``/dev/a[:/dev/b][:rwm]`` means."""
    source, *rest = text.split(":")
    permissions = "rwm"
    if rest and set(rest[-1]) <= set("rwm") and rest[-1]:
        permissions = rest.pop()
    if len(rest) > 1 or not source:
        raise InvalidArgumentError(f"invalid device specification: {text}")
    return {
        "PathOnHost": source,
        "PathInContainer": rest[0] if rest else source,
        "CgroupPermissions": permissions,
    }
