"""OCI resources as properties of a systemd unit.

systemd writes what it knows of a unit again whenever it likes (``daemon-reload``), so it must know
every limit it could write. The files of cgroup v2 are the common language: what ``resources_v2``
would write, and the ``unified`` of the document, becomes the property that writes that file. A
file without a property is left to the caller, who writes all of them himself.

Spec: systemd.resource-control(5); org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError
from cais.linux.cgroups import device_rules, resources_v2
from cais.linux.cgroups.device_rules import ANY
from cais.linux.dbus import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cais.linux.cgroups.device_rules import DeviceSet
    from cais.linux.cgroups.systemd_manager import Properties
    from cais.spec.runtime import DeviceRule, Resources

_YES, _NO = Variant("b", 1), Variant("b", 0)
_INFINITY = 2**64 - 1
_NUMBERS = {
    "cpu.weight": "CPUWeight",
    "io.weight": "IOWeight",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_SINCE_PERIOD, _SINCE_CPUSET, _SINCE_IDLE = 242, 244, 252  # versions of systemd
_NUMBERS_LIMIT = 8192  # of processors: the kernel's own
_QUOTA_STEP_US = 10_000  # systemd counts in hundredths of a processor, rounding down


def limits(resources: Resources, directory: str, version: int) -> Properties:
    """Return the properties for the limits of ``resources``; devices are not among them.

    Args:
        resources: of the document.
        directory: the group's, whose present values fill what an update leaves out.
        version: systemd's, which does not know later properties.

    """
    found: dict[str, Variant] = {}
    files = [(name, value) for name, value, _ in resources_v2.writes(directory, resources)]
    for name, value in (*files, *resources.get("unified", {}).items()):
        found.update(_of_file(name, value.strip(), version))
    return list(found.items())


def devices(rules: Iterable[DeviceRule]) -> Properties:
    """Return the properties that admit what the rules do, and what every container may use."""
    wanted = device_rules.resolve(rules)
    if wanted.allows_by_default:
        # Exceptions to that systemd cannot say: the caller's own program has them.
        return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
    allowed = list(dict.fromkeys(_allowed(wanted)))
    # An empty list takes away what was allowed before; it must be a property of its own.
    return [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", [])),
        ("DeviceAllow", Variant("a(ss)", allowed)),
    ]


def _of_file(name: str, value: str, version: int) -> Iterator[tuple[str, Variant]]:
    if name in _NUMBERS:
        if " " not in value and ":" not in value:  # of one block device, say
            yield _NUMBERS[name], Variant("t", _number(name, value))
    elif name in _LISTS and version >= _SINCE_CPUSET:
        yield _LISTS[name], Variant("ay", bits(value))
    elif name == "cpu.max":
        yield from _bandwidth(value, version)
    elif name == "cpu.idle" and value == "1" and version >= _SINCE_IDLE:
        yield "CPUWeight", Variant("t", 0)


def _bandwidth(value: str, version: int) -> Iterator[tuple[str, Variant]]:
    quota, _, period = value.partition(" ")
    period_us = _number("cpu.max", period or str(resources_v2.DEFAULT_PERIOD_US))
    per_second_us = _number("cpu.max", quota.removeprefix("default"))
    if per_second_us != _INFINITY and period_us:
        exact = -(-per_second_us * 1_000_000 // period_us)
        per_second_us = -(-exact // _QUOTA_STEP_US) * _QUOTA_STEP_US
    if version >= _SINCE_PERIOD:
        yield "CPUQuotaPeriodUSec", Variant("t", period_us)
    yield "CPUQuotaPerSecUSec", Variant("t", per_second_us)


def bits(numbers: str) -> bytes:
    """Return the bit mask of ``0-3,6``, lowest byte first, as systemd wants it.

    Raises:
        InvalidArgumentError: not such a list.

    """
    mask = 0
    for part in filter(None, numbers.replace(" ", ",").split(",")):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(last) < _NUMBERS_LIMIT):
            raise InvalidArgumentError(f"invalid list of processors or memory nodes {numbers!r}")
        for number in range(int(first), int(last) + 1):
            mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _number(name: str, value: str) -> int:
    if value == "max":
        return _INFINITY
    if not value.isdecimal():
        raise InvalidArgumentError(f"invalid value {value[:64]!r} of {name}")
    return min(int(value), _INFINITY)


def _allowed(wanted: DeviceSet) -> Iterator[tuple[str, str]]:
    for (kind, major, minor), access in wanted.exceptions.items():
        letters = "".join(letter for letter in "rwm" if letter in access)
        long = "char" if kind == "c" else "block"
        if major == ANY:
            yield f"{long}-*", letters
        elif minor == ANY:
            # By its driver's name in /proc/devices: systemd takes no other wildcard.
            for name in _drivers(kind, major):
                yield f"{long}-{name}", letters
        else:
            yield f"/dev/{long}/{major}:{minor}", letters


def _drivers(kind: str, major: int) -> list[str]:
    """Return the names of the drivers of a major number; none if no driver has it."""
    with open("/proc/devices", encoding="utf-8", errors="replace") as table:
        characters, _, blocks = table.read().partition("Block devices:")
    lines = (characters if kind == "c" else blocks).splitlines()
    pairs = [line.split(None, 1) for line in lines]
    return [pair[1] for pair in pairs if len(pair) == 2 and pair[0] == str(major)]


def describe(name: str, slice_name: str, pid: int, version: int) -> Properties:
    """Return what a container's scope is, apart from its limits.

    Args:
        name: of the container.
        slice_name: the unit it stands in.
        pid: a process to begin with: a scope without one is refused.
        version: systemd's.

    """
    names = ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"]
    properties: Properties = [
        ("Description", Variant("s", f"cais container {name}")),
        ("Slice", Variant("s", slice_name)),
        ("Delegate", _YES),
        ("DefaultDependencies", _NO),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        *((accounting, _YES) for accounting in names),
        ("PIDs", Variant("au", [pid])),
    ]
    # Scopes know it since 253; a container whose worker was killed for memory goes on.
    if version >= 253:
        properties.append(("OOMPolicy", Variant("s", "continue")))
    return properties


__all__ = ["bits", "describe", "devices", "limits"]
