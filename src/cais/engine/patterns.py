"""Shell patterns as Go's ``path.Match`` reads them; what it takes for none is refused.

Spec: https://pkg.go.dev/path#Match.
"""

from __future__ import annotations

import functools
import re

from cais.errors import InvalidArgumentError

_WILDCARDS = {"*": "[^/]*", "?": "[^/]"}


class _BadPatternError(InvalidArgumentError):
    """The text is no pattern."""

    def __init__(self) -> None:
        super().__init__("syntax error in pattern")


@functools.lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return an expression for ``fullmatch``.

    ``*`` and ``?`` stand for anything but a slash, ``[a-z]`` and ``[^a-z]`` for one of a class,
    and a backslash takes the next character's meaning away.

    Raises:
        InvalidArgumentError: ``syntax error in pattern``.

    """
    expression, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if char == "[":
            part, at = _class(pattern, at + 1)
        elif char in _WILDCARDS:
            part, at = _WILDCARDS[char], at + 1
        else:
            char, at = _character(pattern, at)
            part = re.escape(char)
        expression += part
    return re.compile(expression, re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Translate what stands between brackets; also return where it goes on."""
    is_negated = pattern[at : at + 1] == "^"
    at += is_negated
    ranges: list[str] = []
    while not ranges or pattern[at : at + 1] != "]":
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _member(pattern, at + 1)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    members = "".join(ranges)
    if not members:  # only ranges that hold nothing
        return "." if is_negated else "(?!)", at + 1
    return f"[{'^' if is_negated else ''}{members}]", at + 1


def _member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise _BadPatternError
    return _character(pattern, at)


def _character(pattern: str, at: int) -> tuple[str, int]:
    """Return the character at a place, unescaped, and where it goes on."""
    at += pattern[at] == "\\"
    if at == len(pattern):
        raise _BadPatternError
    return pattern[at], at + 1
