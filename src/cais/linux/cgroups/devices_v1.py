"""Device limits on cgroup v1: ``devices.allow`` and ``devices.deny``, one rule a write.

Spec: kernel Documentation/admin-guide/cgroup-v1/devices.rst.
"""

from __future__ import annotations

from cais.linux.cgroups import files
from cais.linux.cgroups.device_rules import ALL_ACCESS, DeviceSet, format_key, parse_exceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.linux.cgroups.device_rules import Key


def apply(directory: str, wanted: DeviceSet) -> None:
    """Turn the group's list into ``wanted``, never looser than both on the way.

    Raises:
        CgroupError: EPERM, the parent group forbids a device of the list.

    """
    present = parse_exceptions(files.read(f"{directory}/devices.list"))
    for name, rules in transition(present, wanted):
        files.write(f"{directory}/{name}", *rules)


def transition(present: DeviceSet, wanted: DeviceSet) -> Iterator[tuple[str, list[str]]]:
    """Yield the files and what to write into them, rule by rule, that turn one list into the other.

    A list that allows by default does not show its exceptions, so it is always written anew;
    between two lists that deny by default only the difference is written, and a running
    container never loses a device it keeps.
    """
    exception, opposite = (
        ("devices.deny", "devices.allow")
        if wanted.allows_by_default
        else ("devices.allow", "devices.deny")
    )
    known = present.exceptions
    if wanted.allows_by_default or present.allows_by_default:
        yield opposite, ["a"]
        known = {}
    if missing := _difference(wanted.exceptions, known):
        yield exception, missing
    if surplus := _difference(known, wanted.exceptions):
        yield opposite, surplus


def _difference(these: dict[Key, frozenset[str]], those: dict[Key, frozenset[str]]) -> list[str]:
    """Return the rules for what ``these`` has and ``those`` has not."""
    pairs = ((key, access - those.get(key, frozenset())) for key, access in these.items())
    return [_format(format_key(key), access) for key, access in pairs if access]


def _format(key: str, access: frozenset[str]) -> str:
    return f"{key} {''.join(letter for letter in ALL_ACCESS if letter in access)}"
