"""A command line with runc's habits: ``--flag value``, ``--flag=value``, ``-f``, flags first.

Written by hand because argparse costs as much start-up as the rest of the program.

A flag is described by a tuple ``(names, kind, meaning)``: ``"bundle,b"``, its first name being the
one it is asked for by; a kind below; a line for the help.
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Flag = tuple[str, str, str]

SWITCH, TEXT, NUMBER, NUMBERS, DURATION = "switch", "text", "number", "numbers", "duration"
_TRUE = frozenset({"", "1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class UsageError(InvalidArgumentError):
    """A command line that is wrong in itself; the caller also prints the help.

    ``explanation`` is what the help begins with, where it is not obvious from it.
    """

    def __init__(self, text: str, *, explanation: str = "") -> None:
        super().__init__(text)
        self.explanation = explanation


class Arguments:
    """What was given: ``flags`` (name -> values; a switch has an empty list) and ``rest``."""

    __slots__ = ("flags", "rest")

    def __init__(self) -> None:
        self.flags: dict[str, list[str]] = {}
        self.rest: list[str] = []

    def has(self, name: str) -> bool:
        """Say whether the flag was given."""
        return name in self.flags

    def text(self, name: str, default: str = "") -> str:
        """Return the flag's last value."""
        values = self.flags.get(name)
        return values[-1] if values else default

    def number(self, name: str, default: int = 0) -> int:
        """Return the last value of a NUMBER flag."""
        values = self.flags.get(name)
        return int(values[-1], 0) if values else default

    def values(self, name: str) -> list[str]:
        """Return all values of a flag that may be repeated."""
        return self.flags.get(name, [])


def parse(words: Sequence[str], flags: Sequence[Flag]) -> Arguments:
    """Parse flags up to the first word that is none (or ``--``).

    Raises:
        UsageError: an unknown flag, a missing value, or one of another kind.

    """
    known = {name: flag for flag in flags for name in flag[0].split(",")}
    result = Arguments()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        spelled, equals, value = _split(word)
        if spelled not in known:
            raise _wrong(f"flag provided but not defined: -{spelled}")
        kind = known[spelled][1]
        if kind != SWITCH and not equals:
            position += 1
            if position >= len(words):
                raise _wrong(f"flag needs an argument: -{spelled}")
            value = words[position]
        _take(result, known[spelled], spelled, value)
        position += 1
    result.rest = list(words[position:])
    return result


def seconds(text: str) -> float:
    """Read a duration such as ``5s``, ``1m30s`` or ``0.5s``.

    Raises:
        ValueError: not one.

    """
    total, number = 0.0, ""
    rest = text
    while rest:
        length = next((n for n, char in enumerate(rest) if char not in "0123456789."), len(rest))
        number, rest = rest[:length], rest[length:]
        unit = next((name for name in _SECONDS if rest.startswith(name)), None)
        if rest.startswith("ms"):
            unit = "ms"
        if unit is None or not number:
            raise ValueError(text)
        total += float(number) * _SECONDS[unit]
        rest = rest[len(unit) :]
    if not number:
        raise ValueError(text)
    return total


def _split(word: str) -> tuple[str, str, str]:
    name = word[2:] if word.startswith("--") else word[1:]
    if not name or name[0] in "-=":
        raise _wrong(f"bad flag syntax: {word}")
    return name.partition("=")


def _take(result: Arguments, flag: Flag, spelled: str, value: str) -> None:
    names, kind, _ = flag
    name = names.partition(",")[0]
    if kind == SWITCH:
        if value in _TRUE:
            result.flags[name] = []
        elif value in _FALSE:
            result.flags.pop(name, None)
        else:
            raise _wrong(f'invalid boolean value "{value}" for -{spelled}: parse error')
        return
    _check(kind, spelled, value)
    result.flags.setdefault(name, []).append(value)


def _check(kind: str, spelled: str, value: str) -> None:
    reason = "parse error"
    try:
        if kind == NUMBER:
            int(value, 0)
        elif kind == NUMBERS:
            reason = f'strconv.ParseInt: parsing "{value}": invalid syntax'
            int(value)
        elif kind == DURATION:
            seconds(value)
    except ValueError:
        raise _wrong(f'invalid value "{value}" for flag -{spelled}: {reason}') from None


def _wrong(text: str) -> UsageError:
    return UsageError(text, explanation=text)
