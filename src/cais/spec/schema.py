"""Small checks that put together describe a JSON document, and report every fault at once.

A check is a function ``(value, path, faults)`` that appends texts like ``linux.devices[2].type:
...`` to ``faults``. A null member counts as absent, because Go programs write them for unset
pointers; unknown members are left alone, because the OCI specification says so.

Import-light: used by the runtime's parent process.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    Check: TypeAlias = Callable[[object, str, list[str]], None]

MAX_FAULTS = 50  # a hostile document must not buy an unbounded message


def string(*, pattern: str | None = None, choices: tuple[str, ...] = ()) -> Check:
    """Text without NUL, wholly matching ``pattern``, one of ``choices``."""
    matches = re.compile(pattern).fullmatch if pattern else None

    def check(value: object, path: str, faults: list[str]) -> None:
        if not isinstance(value, str):
            _fault(faults, path, f"must be a string, not {_kind(value)}")
        elif "\0" in value:
            _fault(faults, path, "must not contain NUL")
        elif choices and value not in choices:
            _fault(faults, path, f"{value[:64]!r} is not one of {', '.join(choices)}")
        elif matches and not matches(value):
            _fault(faults, path, f"{value[:64]!r} is malformed")

    return check


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
