"""Device rules: from an ordered OCI list to a set both kernels' interfaces can hold.

The kernel's v1 controller keeps a default and exceptions to it; the v2 program is generated from
the same two. Starting point is *deny everything*, so a list that forgets to say so is still
an allow-list (GO-2022-0396).

Spec: OCI runtime-spec 1.2, config-linux.md "Allowed Device list".
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from cais.spec.runtime import DeviceRule

    Key: TypeAlias = tuple[str, int, int]

ANY = -1
ALL_ACCESS = "rwm"

# Nodes every container gets, terminals, tun; and the right to make (not to open) any node.
DEFAULT_ALLOWED: tuple[tuple[str, int, int, str], ...] = (
    ("c", ANY, ANY, "m"),
    ("b", ANY, ANY, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 7, "rwm"),  # full
    ("c", 5, 0, "rwm"),  # tty
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 136, ANY, "rwm"),  # pts
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 10, 200, "rwm"),  # net/tun
)


class DeviceSet:
    """What the group may open: ``allows_by_default``, except for ``exceptions``."""

    __slots__ = ("allows_by_default", "exceptions")

    def __init__(
        self, *, allows_by_default: bool, exceptions: dict[Key, frozenset[str]] | None = None
    ) -> None:
        self.allows_by_default = allows_by_default
        self.exceptions: dict[Key, frozenset[str]] = exceptions or {}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DeviceSet)
            and self.allows_by_default == other.allows_by_default
            and self.exceptions == other.exceptions
        )

    __hash__ = None  # type: ignore[assignment]

    def apply(self, key: Key, access: frozenset[str], *, allow: bool) -> None:
        """Apply one more rule, as if appended to the list.

        Raises:
            InvalidArgumentError: the rule takes a part out of a wildcard exception, which no
                list of exceptions can say.

        """
        if key[0] == "a":
            self.allows_by_default, self.exceptions = allow, {}
        elif allow != self.allows_by_default:
            self.exceptions[key] = self.exceptions.get(key, frozenset()) | access
        else:
            self._withdraw(key, access)

    def _withdraw(self, key: Key, access: frozenset[str]) -> None:
        for other in list(self.exceptions):
            if not _covers(key, other):
                if _overlaps(key, other) and self.exceptions[other] & access:
                    raise InvalidArgumentError(
                        f"device rule {format_key(key)} takes a part out of {format_key(other)}"
                    )
                continue
            if left := self.exceptions[other] - access:
                self.exceptions[other] = left
            else:
                del self.exceptions[other]


def resolve(rules: Iterable[DeviceRule]) -> DeviceSet:
    """Reduce ``rules``, in order, and then the devices no container may be refused.

    Raises:
        InvalidArgumentError: a rule without a meaning, or one that cannot be combined.

    """
    devices = DeviceSet(allows_by_default=False)
    for rule in rules:
        devices.apply(*_parse_rule(rule), allow=rule["allow"])
    for kind, major, minor, access in DEFAULT_ALLOWED:
        devices.apply((kind, major, minor), frozenset(access), allow=True)
    return devices


def format_key(key: Key) -> str:
    """Return ``c 1:3`` or ``b 8:*``, the kernel's writing."""
    kind, major, minor = key
    return f"{kind} {'*' if major == ANY else major}:{'*' if minor == ANY else minor}"


def parse_exceptions(text: str) -> DeviceSet:
    """Read v1 ``devices.list``: one ``a *:* rwm`` line, or the allowed devices."""
    devices = DeviceSet(allows_by_default=False)
    for line in text.splitlines():
        kind, numbers, access = line.split()
        if kind == "a":
            return DeviceSet(allows_by_default=True)
        major, minor = (ANY if part == "*" else int(part) for part in numbers.split(":"))
        key = (kind, major, minor)
        devices.exceptions[key] = devices.exceptions.get(key, frozenset()) | frozenset(access)
    return devices


def _parse_rule(rule: DeviceRule) -> tuple[Key, frozenset[str]]:
    kind = rule.get("type") or "a"
    major, minor = rule.get("major", ANY), rule.get("minor", ANY)
    access = frozenset(rule.get("access") or (ALL_ACCESS if kind == "a" else ""))
    key = (kind, major, minor)
    if not access or not access <= frozenset(ALL_ACCESS):
        raise InvalidArgumentError(f"device rule {format_key(key)} has no valid access")
    if not (ANY <= major < 2**32 and ANY <= minor < 2**32):
        raise InvalidArgumentError(f"device rule {format_key(key)}: number out of range")
    if kind == "a" and (major != ANY or minor != ANY or access != frozenset(ALL_ACCESS)):
        raise InvalidArgumentError(f"device rule {format_key(key)}: type a means every device")
    return key, access


def _covers(wide: Key, narrow: Key) -> bool:
    return wide[0] == narrow[0] and all(
        mine in (ANY, theirs) for mine, theirs in zip(wide[1:], narrow[1:], strict=True)
    )


def _overlaps(one: Key, other: Key) -> bool:
    return one[0] == other[0] and all(
        ANY in (mine, theirs) or mine == theirs
        for mine, theirs in zip(one[1:], other[1:], strict=True)
    )
