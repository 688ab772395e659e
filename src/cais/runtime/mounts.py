"""OCI mount entries as the kernel's terms: attributes, propagation, options of the file system.

Parsing happens in the parent, before the clone, so that a wrong option is the caller's error and
the child only makes system calls.

Spec: OCI runtime-spec 1.2, config.md "Mounts", "Linux mount options".
"""

from __future__ import annotations

import posixpath

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from cais.spec.runtime import IdMapping

    IdentityMap = list[tuple[int, int, int]]

# option -> (attributes set, attributes cleared)
_ATTRIBUTES = {
    "ro": (mount.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mount.MOUNT_ATTR_RDONLY),
    "nosuid": (mount.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mount.MOUNT_ATTR_NOSUID),
    "nodev": (mount.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mount.MOUNT_ATTR_NODEV),
    "noexec": (mount.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mount.MOUNT_ATTR_NOEXEC),
    "nodiratime": (mount.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, mount.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (mount.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, mount.MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR_ATIME_MASK),
    "strictatime": (mount.MOUNT_ATTR_STRICTATIME, mount.MOUNT_ATTR_ATIME_MASK),
    "relatime": (0, mount.MOUNT_ATTR_ATIME_MASK),
    "atime": (0, mount.MOUNT_ATTR_ATIME_MASK),
    "norelatime": (0, 0),  # relatime is the kernel's default: there is no mode "not relatime"
    "nostrictatime": (0, mount.MOUNT_ATTR_ATIME_MASK),
}
_PROPAGATION = {
    "private": mount.MS_PRIVATE,
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "unbindable": mount.MS_UNBINDABLE,
}
# Mandatory locks are gone (Linux 5.15), file systems that keep a change counter always keep it.
_IGNORED = frozenset(
    {
        *("defaults", "newinstance", "nofail", "loud", "silent", "mand", "nomand"),
        *("iversion", "noiversion"),
    }
)
_LABELLED = frozenset({"tmpfs", "devpts", "mqueue", "ramfs"})  # what SELinux labels by an option
_OTHERS = (
    *("bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"),
    *("sync", "async", "dirsync", "lazytime", "nolazytime"),  # the file system's, by their names
)
# The only things under /proc somebody may bind over: emulations such as lxcfs (runc's list).
PROC_TARGETS = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
)


class MountPlan:
    """One mount, parsed. ``tree_fd`` is the detached mount, -1 until it is made.

    With ``idmap``, the owners of its files are shown through ``uid_map`` and ``gid_map``, or the
    container's own maps when those are empty; ``idmap_fd`` is a user namespace that has them.
    """

    __slots__ = (
        "asks_propagation",
        "clear",
        "content",
        "copies_up",
        "deep_clear",
        "deep_set",
        "destination",
        "gid_map",
        "idmap",
        "idmap_deep",
        "idmap_fd",
        "kind",
        "options",
        "propagation",
        "recursive",
        "set",
        "source",
        "tree_fd",
        "uid_map",
    )

    def __init__(self, kind: str, source: str, destination: str) -> None:
        self.kind = kind
        self.source = source
        self.destination = destination
        self.options: list[tuple[str, str | None]] = []
        self.set = self.clear = self.deep_set = self.deep_clear = 0
        self.propagation = [(mount.MS_PRIVATE, True)]
        self.asks_propagation = False  # an option says something about it
        self.recursive = False
        self.copies_up = False
        self.idmap = self.idmap_deep = False
        self.uid_map: IdentityMap = []
        self.gid_map: IdentityMap = []
        self.idmap_fd = -1
        self.content = (b"", 0)  # of a small file: bytes, permissions
        self.tree_fd = -1

    @property
    def has_mode(self) -> bool:
        """Whether an option says which mode its top directory has."""
        return any(key == "mode" for key, _ in self.options)

    def describe(self) -> str:
        """Return how Docker names this mount in an error."""
        return f'error mounting "{self.source or self.kind}" to rootfs at "{self.destination}"'


def parse_mount(entry: Mapping[str, Any], bundle: str) -> MountPlan:
    """Parse an entry of ``mounts``; relative bind sources start at the bundle.

    Raises:
        InvalidArgumentError: an impossible place or combination.
        UnsupportedError: an option this runtime does not implement.

    """
    options = entry.get("options", [])
    bind = entry.get("type") == "bind" or "bind" in options or "rbind" in options
    kind = "bind" if bind else entry.get("type", "")
    destination = posixpath.normpath("/" + entry["destination"].lstrip("/"))
    plan = MountPlan(kind, entry.get("source", ""), destination)
    for option in options:
        _apply(plan, option)
    _take_maps(plan, entry)
    if "remount" in options:
        plan.kind = "remount"
    elif bind:
        if not plan.source:
            raise InvalidArgumentError(f"mount {destination}: a bind mount needs a source")
        plan.source = posixpath.join(bundle, plan.source)
    elif not kind:
        raise InvalidArgumentError(f"mount {destination}: no type")
    if bind:
        plan.options = []  # a bind has no file system of its own to give them to
    _check_destination(plan)
    return plan


def label(plans: Iterable[MountPlan], context: str) -> None:
    """Give the file systems made for the container an SELinux context of their own."""
    for plan in plans:
        if plan.kind in _LABELLED:
            plan.options.append(("context", context))


def parse_root_mount(entry: Mapping[str, Any]) -> MountPlan:
    """Parse a ``rootfs`` entry of ``cais.json`` (what a snapshotter gives)."""
    plan = MountPlan(entry["type"], entry.get("source", ""), entry.get("target") or "/")
    if plan.kind == "bind":
        plan.recursive = True
    for option in entry.get("options", ()):
        _apply(plan, option)
    return plan


def identity_map(entries: Iterable[IdMapping]) -> IdentityMap:
    """Return (inside, outside, count) of each line of ``uidMappings`` or ``gidMappings``."""
    return [(entry["containerID"], entry["hostID"], entry["size"]) for entry in entries]


def known_options() -> list[str]:
    """Return every option that is no file system's own."""
    recursive = [f"r{name}" for name in (*_ATTRIBUTES, *_PROPAGATION)]
    return sorted({*_ATTRIBUTES, *_PROPAGATION, *recursive, *_OTHERS, *_IGNORED})


def overlay_layers(options: Iterable[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Replace ``lowerdir=a:b`` by a ``lowerdir+`` for each layer, topmost first."""
    result: list[tuple[str, str | None]] = []
    for key, value in options:
        if key == "lowerdir" and value is not None:
            result += [("lowerdir+", layer) for layer in split_layers(value)]
        else:
            result.append((key, value))
    return result


def split_layers(value: str) -> list[str]:
    r"""Split ``lowerdir`` at colons that are not escaped; ``\:`` is a colon in a name."""
    layers = [""]
    escaped = False
    for char in value:
        if char == ":" and not escaped:
            layers.append("")
        elif char == "\\" and not escaped:
            escaped = True
            continue
        else:
            layers[-1] += char
        escaped = False
    return layers


def _apply(plan: MountPlan, option: str) -> None:
    name = option[1:] if option[:1] == "r" and option not in _ATTRIBUTES else ""
    if option in ("bind", "rbind"):
        plan.recursive = option == "rbind"
    elif option in ("idmap", "ridmap"):
        plan.idmap, plan.idmap_deep = True, option == "ridmap"
    elif option == "tmpcopyup":
        plan.copies_up = plan.kind == "tmpfs"
    elif option == "remount":
        return
    elif option in _ATTRIBUTES:
        bits, clear = _ATTRIBUTES[option]
        plan.set = plan.set & ~clear | bits
        plan.clear = plan.clear & ~bits | clear
    elif name in _ATTRIBUTES:
        bits, clear = _ATTRIBUTES[name]
        plan.deep_set = plan.deep_set & ~clear | bits
        plan.deep_clear = plan.deep_clear & ~bits | clear
    elif option in _PROPAGATION or name in _PROPAGATION:
        deep = option not in _PROPAGATION
        wanted = (_PROPAGATION[name if deep else option], deep)
        plan.propagation = [*plan.propagation, wanted] if plan.asks_propagation else [wanted]
        plan.asks_propagation = True
    elif option not in _IGNORED:
        key, equals, value = option.partition("=")
        plan.options.append((key, value if equals else None))


def _take_maps(plan: MountPlan, entry: Mapping[str, Any]) -> None:
    plan.uid_map = identity_map(entry.get("uidMappings", ()))
    plan.gid_map = identity_map(entry.get("gidMappings", ()))
    plan.idmap = plan.idmap or bool(plan.uid_map or plan.gid_map)
    if not plan.idmap:
        return
    if plan.kind != "bind":
        raise UnsupportedError(f"mount {plan.destination}: only bind mounts can be ID-mapped")
    if bool(plan.uid_map) != bool(plan.gid_map):
        text = "uidMappings and gidMappings must be given together"
        raise InvalidArgumentError(f"mount {plan.destination}: {text}")


def _check_destination(plan: MountPlan) -> None:
    """Refuse places that would hide or forge what the engine itself relies on (CVE-2019-19921)."""
    place = plan.destination
    if place == "/":
        raise InvalidArgumentError("invalid mount destination '/': it is the root itself")
    if place == "/proc" and plan.kind not in ("proc", "bind"):
        raise InvalidArgumentError(f'"/proc" cannot be a mount of type {plan.kind}')
    inside = place.startswith("/proc/") and place not in PROC_TARGETS
    if inside:
        raise InvalidArgumentError(f'"{place}" cannot be mounted because it is inside /proc')
