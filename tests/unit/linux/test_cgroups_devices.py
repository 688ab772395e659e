"""Device rules reduced to what the kernels hold, and both kernels' forms of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import InvalidArgumentError
from cais.linux.cgroups import devices_v1, devices_v2
from cais.linux.cgroups.device_rules import (
    ANY,
    DEFAULT_ALLOWED,
    DeviceSet,
    parse_exceptions,
    resolve,
)

DENY_ALL = {"allow": False, "access": "rwm"}


def allow(kind: str, major: int, minor: int, access: str = "rwm") -> dict[str, object]:
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def permits(devices: DeviceSet, kind: str, major: int, minor: int, access: str) -> bool:
    """Say what the kernel's v1 controller answers for this set."""
    wanted = frozenset(access)
    for (other, a, b), granted in devices.exceptions.items():
        if other == kind and a in (ANY, major) and b in (ANY, minor):
            if devices.allows_by_default and wanted & granted:
                return False
            if not devices.allows_by_default and wanted <= granted:
                return True
    return devices.allows_by_default


def run_program(code: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Interpret the program as the kernel would; the verifier's rules are asserted on the way."""
    bits = sum(devices_v2.ACCESS_BITS[letter] for letter in access)
    context = {0: bits << 16 | devices_v2.TYPE_NUMBERS[kind], 4: major, 8: minor}
    registers: dict[int, int] = {}
    counter = 0
    while True:
        assert counter * 8 < len(code), "ran off the end"
        opcode, names, offset, value = struct.unpack_from("=BBhi", code, counter * 8)
        target, source = names & 15, names >> 4
        counter += 1
        if opcode == 0x61:
            registers[target] = context[offset]
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0xB7:
            registers[target] = value
        elif opcode == 0x57:
            registers[target] &= value % 2**64
        elif opcode == 0x77:
            registers[target] >>= value
        elif opcode == 0x95:
            assert registers[0] in (0, 1)
            return bool(registers[0])
        else:
            assert offset >= 0, "a loop"
            assert opcode & 7 == 6, "not a comparison of 32 bits"
            left = registers[target] % 2**32
            right = (registers[source] if opcode == 0x5E else value) % 2**32
            if (left == right) == (opcode == 0x16):
                counter += offset


def test_nothing_said_means_the_default_list_alone() -> None:
    devices = resolve([])
    assert not devices.allows_by_default
    assert set(devices.exceptions) == {(kind, a, b) for kind, a, b, _ in DEFAULT_ALLOWED}
    assert not permits(devices, "b", 8, 0, "r")
    assert permits(devices, "b", 8, 0, "m")


def test_a_list_that_forgets_to_deny_is_still_an_allow_list() -> None:
    """GO-2022-0396."""
    devices = resolve([allow("c", 10, 229)])  # type: ignore[list-item]
    assert permits(devices, "c", 10, 229, "rw")
    assert not permits(devices, "c", 10, 228, "r")


def test_privileged_allows_all() -> None:
    devices = resolve([{"allow": True, "access": "rwm"}])
    assert devices == DeviceSet(allows_by_default=True)


def test_order_counts() -> None:
    fuse = {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    assert not permits(resolve([allow("c", 10, 229), fuse]), "c", 10, 229, "r")  # type: ignore[list-item]
    assert permits(resolve([fuse, allow("c", 10, 229)]), "c", 10, 229, "r")  # type: ignore[list-item]
    everything_but = resolve([{"allow": True, "type": "a"}, fuse])  # type: ignore[list-item]
    assert everything_but.allows_by_default
    assert not permits(everything_but, "c", 10, 229, "r")
    assert permits(everything_but, "c", 10, 228, "rwm")


def test_a_part_of_a_wildcard_cannot_be_taken_out() -> None:
    hole = {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "r"}
    with pytest.raises(InvalidArgumentError, match=r"c 10:229 takes a part out of c 10:\*"):
        resolve([allow("c", 10, ANY), hole])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "rule",
    [
        {"allow": True, "type": "c", "major": 1, "minor": 3},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "x"},
        {"allow": True, "type": "c", "major": -2, "access": "r"},
        {"allow": True, "type": "c", "major": 2**32, "access": "r"},
        {"allow": True, "type": "a", "major": 1, "access": "rwm"},
        {"allow": True, "type": "a", "access": "r"},
    ],
)
def test_rules_without_a_meaning(rule: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match="device rule"):
        resolve([rule])  # type: ignore[list-item]


def test_v1_writes_deny_first() -> None:
    present = parse_exceptions("a *:* rwm\n")
    writes = list(devices_v1.transition(present, resolve([DENY_ALL])))  # type: ignore[list-item]
    allowed = [
        f"{kind} {'*' if a == ANY else a}:{'*' if b == ANY else b} {access}"
        for kind, a, b, access in DEFAULT_ALLOWED
    ]
    assert writes == [("devices.deny", ["a"]), ("devices.allow", allowed)]


def test_v1_updates_by_difference() -> None:
    present = resolve([allow("c", 10, 229), allow("b", 8, 0, "rw")])  # type: ignore[list-item]
    wanted = resolve([allow("c", 10, 228), allow("b", 8, 0, "r")])  # type: ignore[list-item]
    assert list(devices_v1.transition(present, wanted)) == [
        ("devices.allow", ["c 10:228 rwm"]),
        ("devices.deny", ["c 10:229 rwm", "b 8:0 w"]),
    ]
    assert list(devices_v1.transition(wanted, wanted)) == []


def test_v1_list_is_read_back() -> None:
    text = "c 1:3 rwm\nc *:* m\nb 8:* r\n"
    devices = parse_exceptions(text)
    assert devices.exceptions[("b", 8, ANY)] == frozenset("r")
    assert not devices.allows_by_default


@pytest.mark.parametrize(
    ("default", "granted", "asked", "expected"),
    [
        (False, "r", "r", True),
        (False, "r", "rw", False),
        (False, "rw", "r", True),
        (False, "m", "r", False),
        (False, "rwm", "rw", True),
        (True, "r", "r", False),
        (True, "r", "rw", False),
        (True, "r", "w", True),
        (True, "rwm", "m", False),
    ],
)
def test_every_access_asked_for_counts(
    default: bool, granted: str, asked: str, expected: bool
) -> None:
    exceptions = {("c", 1, ANY): frozenset(granted)}
    devices = DeviceSet(allows_by_default=default, exceptions=exceptions)
    assert permits(devices, "c", 1, 7, asked) is expected
    assert run_program(devices_v2.assemble(devices), "c", 1, 7, asked) is expected


NUMBERS = st.sampled_from([ANY, 0, 1, 5, 229, 2**31, 2**32 - 1])
EXCEPTIONS = st.dictionaries(
    st.tuples(st.sampled_from("bc"), NUMBERS, NUMBERS),
    st.frozensets(st.sampled_from("rwm"), min_size=1),
    max_size=12,
)
REQUEST = st.tuples(
    st.sampled_from("bc"),
    st.sampled_from([0, 1, 5, 7, 229, 2**31 - 1, 2**31, 2**32 - 1]),
    st.sampled_from([0, 1, 5, 7, 229, 2**31 - 1, 2**31, 2**32 - 1]),
    st.sampled_from(["r", "w", "rw", "m"]),
)


@given(EXCEPTIONS, st.booleans(), REQUEST)
def test_the_v2_program_answers_as_v1_would(
    exceptions: dict[tuple[str, int, int], frozenset[str]],
    default: bool,
    request_: tuple[str, int, int, str],
) -> None:
    devices = DeviceSet(allows_by_default=default, exceptions=exceptions)
    expected = permits(devices, *request_)
    assert run_program(devices_v2.assemble(devices), *request_) == expected
