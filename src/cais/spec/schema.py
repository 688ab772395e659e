"""Small checks that put together describe a JSON document, and report every fault at once.

A check is a function ``(value, path, faults)`` that appends texts like ``linux.devices[2].type:
...`` to ``faults``. A null member counts as absent, because Go programs write them for unset
pointers; unknown members are left alone, because the OCI specification says so.

Import-light: used by the runtime's parent process.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Check: TypeAlias = Callable[[object, str, list[str]], None]
    Test: TypeAlias = Callable[[str], bool]

MAX_FAULTS = 50  # a hostile document must not buy an unbounded message


def string(test: Test | None = None, *, choices: tuple[str, ...] = ()) -> Check:
    """Text without NUL that passes ``test`` and is one of ``choices``."""

    def check(value: object, path: str, faults: list[str]) -> None:
        if not isinstance(value, str):
            _fault(faults, path, f"must be a string, not {_kind(value)}")
        elif "\0" in value:
            _fault(faults, path, "must not contain NUL")
        elif choices and value not in choices:
            _fault(faults, path, f"{value[:64]!r} is not one of {', '.join(choices)}")
        elif test and not test(value):
            _fault(faults, path, f"{value[:64]!r} is malformed")

    return check


def filled(text: str) -> bool:
    """Test for a text that is not empty."""
    return bool(text)


def made_of(letters: str, *, prefix: str = "") -> Test:
    """Return a test for ``prefix`` and then at least one of ``letters``, and nothing else."""
    allowed = frozenset(letters)

    def test(text: str) -> bool:
        rest = text[len(prefix) :]
        return text.startswith(prefix) and bool(rest) and allowed.issuperset(rest)

    return test


def matching(pattern: str) -> Test:
    """Return a test for the whole text against a regular expression.

    For members few documents have: the first use loads ``re``, which costs 6 ms.
    """

    def test(text: str) -> bool:
        import re

        return re.fullmatch(pattern, text) is not None

    return test


def integer(low: int, high: int) -> Check:
    """A whole number in ``low..high``; neither a boolean nor a fraction."""

    def check(value: object, path: str, faults: list[str]) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            _fault(faults, path, f"must be an integer, not {_kind(value)}")
        elif not low <= value <= high:
            _fault(faults, path, f"must be in {low}..{high}")

    return check


def boolean(value: object, path: str, faults: list[str]) -> None:
    """Check for true or false."""
    if not isinstance(value, bool):
        _fault(faults, path, f"must be a boolean, not {_kind(value)}")


def array(item: Check, *, at_least: int = 0) -> Check:
    """A list of ``item``."""

    def check(value: object, path: str, faults: list[str]) -> None:
        if not isinstance(value, list):
            _fault(faults, path, f"must be an array, not {_kind(value)}")
            return
        if len(value) < at_least:
            _fault(faults, path, "must not be empty")
        for index, member in enumerate(value):
            item(member, f"{path}[{index}]", faults)

    return check


def mapping(item: Check) -> Check:
    """An object with free, non-empty keys and ``item`` values."""

    def check(value: object, path: str, faults: list[str]) -> None:
        if not isinstance(value, dict):
            _fault(faults, path, f"must be an object, not {_kind(value)}")
            return
        for key, member in value.items():
            if not key or "\0" in key:
                _fault(faults, path, f"{key[:64]!r} is not a usable key")
            item(member, f"{path}[{key[:64]!r}]", faults)

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """An object with these members; others are not looked at."""
    known = {**required, **optional}

    def check(value: object, path: str, faults: list[str]) -> None:
        if not isinstance(value, dict):
            _fault(faults, path, f"must be an object, not {_kind(value)}")
            return
        prefix = f"{path}." if path else ""
        for name in required:
            if value.get(name) is None:
                _fault(faults, prefix + name, "is required")
        for name, member in value.items():
            if member is not None and name in known:
                known[name](member, prefix + name, faults)

    return check


def without_nulls(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return ``value`` with every null object member removed, at any depth."""
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(member) for member in value]
    return value


def _fault(faults: list[str], path: str, text: str) -> None:
    if len(faults) < MAX_FAULTS:
        faults.append(f"{path or 'document'}: {text}")


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a fraction", str: "a string"}
    names |= {list: "an array", dict: "an object", type(None): "null"}
    return names.get(type(value), type(value).__name__)
