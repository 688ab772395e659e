"""Query strings as Go's net/url reads them, and their values as moby's httputils does."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from cais.errors import InvalidArgumentError

_FALSE = frozenset({"", "0", "no", "false", "none"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MAX_PARAMETERS = 1000


class Query:
    """The decoded parameters of one request; of a repeated one, ``text`` gives the first."""

    __slots__ = ("_values",)

    def __init__(self, raw: str = "") -> None:
        """Decode ``raw``, what stands after the question mark.

        Raises:
            InvalidArgumentError: a malformed escape, or too many parameters.

        """
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        pairs = raw.split("&")
        if len(pairs) > _MAX_PARAMETERS:
            raise InvalidArgumentError(f"more than {_MAX_PARAMETERS} query parameters")
        for pair in pairs:
            if pair:
                name, _, value = pair.partition("=")
                self._values.setdefault(_unescape(name), []).append(_unescape(value))

    def text(self, name: str, default: str = "") -> str:
        """Return the first value, ``default`` if there is none."""
        values = self._values.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """Return every value given for ``name``."""
        return list(self._values.get(name, ()))

    def has(self, name: str) -> bool:
        """Whether ``name`` was given, also without a value."""
        return name in self._values

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Read a boolean: anything but ``""``, 0, no, false and none is true."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def integer(self, name: str) -> int | None:
        """Read a number; None if it was not given or is empty.

        Raises:
            InvalidArgumentError: not an integer of 64 bits.

        """
        text = self.text(name)
        if not text:
            return None
        if not _INTEGER.fullmatch(text):
            raise InvalidArgumentError(f'strconv.Atoi: parsing "{text}": invalid syntax')
        number = int(text)
        if not -(2**63) <= number < 2**63:
            raise InvalidArgumentError(f'strconv.Atoi: parsing "{text}": value out of range')
        return number


def _unescape(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise InvalidArgumentError("invalid URL escape in the query")
    return unquote_plus(text)
