"""Device nodes and device rules: Docker's default list, ``--device``, rules, privileged.

Spec: SECURITY.md 3.5; OCI runtime-spec 1.2, config-linux.md "Devices", "Allowed Device list".
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.spec.container import DeviceRequest, HostConfig

Document = dict[str, Any]
_RULE = re.compile(r"([acb]) ([0-9]{1,10}|\*):([0-9]{1,10}|\*) ([rwm]{1,3})", re.ASCII)
_PERMISSIONS = re.compile(r"[rwm]{1,3}")
_NOT_HOST_NODES = frozenset(
    ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "stdin", "stdout")
)
DEFAULT_RULES = (
    {"allow": False, "access": "rwm"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
    ),
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},  # fuse
)
PRIVILEGED_RULES = ({"allow": True, "access": "rwm"},)


def devices_and_rules(host_config: HostConfig) -> tuple[list[Document], list[Document]]:
    """Return ``linux.devices`` and ``linux.resources.devices``.

    Privileged containers get every node of the host's /dev and no rule but the one that allows
    all; nodes asked for under another name are added.

    Raises:
        InvalidArgumentError: no such device, or a rule or permission that is none.
        UnsupportedError: devices asked for by capability (``--gpus``).

    """
    if host_config.device_requests:
        raise _no_driver(host_config.device_requests[0])
    nodes: list[Document] = []
    rules = [dict(rule) for rule in DEFAULT_RULES]
    for mapping in host_config.devices or ():
        if host_config.privileged and mapping.path_on_host == mapping.path_in_container:
            continue
        found = list(_from_path(mapping.path_on_host, mapping.path_in_container))
        nodes += found
        rules += [_allow(node, mapping.cgroup_permissions or "rwm") for node in found]
    if host_config.privileged:
        return [*host_devices(), *nodes], [dict(rule) for rule in PRIVILEGED_RULES]
    rules += [parse_rule(rule) for rule in host_config.device_cgroup_rules or ()]
    return nodes, rules


def parse_rule(text: str) -> Document:
    """Parse ``c 42:* rmw``.

    Raises:
        InvalidArgumentError: Docker's text.

    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgumentError(f"invalid device cgroup rule format: '{text[:128]}'")
    kind, major, minor, access = match.groups()
    rule: Document = {"allow": True, "type": kind, "access": access}
    rule["major"] = -1 if major == "*" else int(major)
    rule["minor"] = -1 if minor == "*" else int(minor)
    return rule


def host_devices() -> list[Document]:
    """Return every device node in /dev; terminals and links are the container's own."""
    return [node for node, _ in _walk("/dev")]


def _from_path(on_host: str, in_container: str) -> Iterator[Document]:
    """Yield the node at a path, or every node below it if it is a directory."""
    source = _resolve(os.path.normpath(on_host))
    try:
        status = os.lstat(source)
    except (OSError, ValueError) as exc:
        raise _no_device(on_host, "no such file or directory") from exc
    if node := _node(status, in_container or on_host):
        yield node
        return
    found = False
    if stat.S_ISDIR(status.st_mode):
        for node, path in _walk(source):
            found = True
            yield {**node, "path": in_container + path.removeprefix(source)}
    if not found:
        raise _no_device(on_host, "not a device node")


def _resolve(path: str) -> str:
    """Follow a link, if what it leads to is in /dev (as /dev/disk/by-id does)."""
    try:
        target = str(Path(path).resolve(strict=True)) if Path(path).is_symlink() else path
    except (OSError, ValueError):
        return path
    return target if target.startswith("/dev/") else path


def _walk(root: str) -> Iterator[tuple[Document, str]]:
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
            return
        raise
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _NOT_HOST_NODES:
                yield from _walk(entry.path)
        elif entry.name not in _NOT_HOST_NODES and not entry.is_symlink():
            node = _node(entry.stat(follow_symlinks=False), entry.path)
            if node is not None:
                yield node, entry.path


def _node(status: os.stat_result, path: str) -> Document | None:
    if stat.S_ISBLK(status.st_mode):
        kind = "b"
    elif stat.S_ISCHR(status.st_mode):
        kind = "c"
    else:
        return None
    return {
        "type": kind,
        "path": path,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _allow(node: Document, permissions: str) -> Document:
    if not _PERMISSIONS.fullmatch(permissions):
        raise InvalidArgumentError(f"invalid device mode: {permissions[:64]}")
    numbers = {name: node[name] for name in ("type", "major", "minor")}
    return {"allow": True, **numbers, "access": permissions}


def _no_device(path: str, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f'error gathering device information while adding custom device "{path[:256]}": {why}'
    )


def _no_driver(request: DeviceRequest) -> UnsupportedError:
    wanted = " ".join("[" + " ".join(group) + "]" for group in request.capabilities or ())
    return UnsupportedError(
        f'could not select device driver "{request.driver[:64]}" with capabilities: [{wanted}]'
    )
