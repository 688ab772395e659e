"""Device limits on cgroup v1: ``devices.allow`` and ``devices.deny``, one rule a write.

Spec: kernel Documentation/admin-guide/cgroup-v1/devices.rst.
"""

from __future__ import annotations

from cais.linux.cgroups import files
from cais.linux.cgroups.device_rules import ALL_ACCESS, DeviceSet, format_key, parse_exceptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def apply(directory: str, wanted: DeviceSet) -> None:
    """Turn the group's list into ``wanted``, never looser than both on the way.

    Raises:
        CgroupError: EPERM, the parent group forbids a device of the list.

    """
    present = parse_exceptions(files.read(f"{directory}/devices.list"))
    for name, rule in transition(present, wanted):
        files.write(f"{directory}/{name}", rule)


def transition(present: DeviceSet, wanted: DeviceSet) -> Iterator[tuple[str, str]]:
    """Yield the writes, file and rule, that turn one list into the other.

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
        yield opposite, "a"
        known = {}
    for key, access in wanted.exceptions.items():
        if missing := access - known.get(key, frozenset()):
            yield exception, _format(format_key(key), missing)
    for key, access in known.items():
        if surplus := access - wanted.exceptions.get(key, frozenset()):
            yield opposite, _format(format_key(key), surplus)


def _format(key: str, access: frozenset[str]) -> str:
    return f"{key} {''.join(letter for letter in ALL_ACCESS if letter in access)}"
