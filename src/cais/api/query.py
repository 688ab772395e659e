"""Query strings as Go's net/url and moby's httputils read them.

Spec: docker-engine-api v1.51, "query" parameters; the texts are dockerd's.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

from cais.errors import InvalidArgumentError
from cais.spec import strict_json

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

    def filters(self, name: str = "filters") -> dict[str, list[str]]:
        """Read ``{"name": {"value": true}}``, or the older ``{"name": ["value"]}``.

        Raises:
            InvalidArgumentError: anything else.

        """
        text = self.text(name)
        if not text:
            return {}
        try:
            document = strict_json.loads(text)
        except InvalidArgumentError as exc:
            raise InvalidArgumentError(f"invalid filter: {exc}") from exc
        if not isinstance(document, dict):
            raise InvalidArgumentError("invalid filter")
        return {key: _filter_values(value) for key, value in document.items()}


def _filter_values(value: object) -> list[str]:
    if isinstance(value, dict) and all(isinstance(on, bool) for on in value.values()):
        return list(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list(value)
    raise InvalidArgumentError("invalid filter")


def _unescape(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise InvalidArgumentError("invalid URL escape in the query")
    return unquote_plus(text)


def window_size(query: Query) -> tuple[int, int]:
    """Read a terminal's height and width.

    Raises:
        InvalidArgumentError: one is missing or not a number of 32 bits.

    """
    return _uint32(query, "h", "height"), _uint32(query, "w", "width")


def _uint32(query: Query, name: str, meaning: str) -> int:
    text = query.text(name)
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise InvalidArgumentError(f'invalid resize {meaning} "{text}": invalid syntax')
    if int(text) >= 2**32:
        raise InvalidArgumentError(f'invalid resize {meaning} "{text}": value out of range')
    return int(text)
