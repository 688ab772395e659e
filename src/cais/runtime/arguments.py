"""A command line with runc's habits: ``--flag value``, ``--flag=value``, ``-f``, flags first.

Written by hand because argparse costs as much start-up as the rest of the program.
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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

    def number(self, name: str) -> int | None:
        """Return the flag's last value as a number; None when it was not given."""
        text = self.text(name)
        if not text:
            return None
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit():
            raise InvalidArgumentError(f'invalid value "{text}" for flag --{name}')
        return int(text)

    def values(self, name: str) -> list[str]:
        """Return all values of a flag that may be repeated."""
        return self.flags.get(name, [])


def parse(
    words: Sequence[str], switches: Mapping[str, str], options: Mapping[str, str]
) -> Arguments:
    """Parse flags up to the first word that is none (or ``--``).

    Args:
        words: the command line.
        switches: spelling without dashes -> name, of flags without a value.
        options: spelling without dashes -> name, of flags with one.

    Raises:
        InvalidArgumentError: an unknown flag, or a missing value.

    """
    result = Arguments()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if name in switches:
            if value != "false":
                result.flags[switches[name]] = []
        elif name in options:
            if not equals:
                position += 1
                if position >= len(words):
                    raise InvalidArgumentError(f"flag needs an argument: {word}")
                value = words[position]
            result.flags.setdefault(options[name], []).append(value)
        else:
            raise InvalidArgumentError(f"flag provided but not defined: {word}")
        position += 1
    result.rest = list(words[position:])
    return result
