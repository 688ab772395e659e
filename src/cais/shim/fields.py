"""Fields of a request, read strictly: what is missing or of another type is refused by name."""

from __future__ import annotations

import re

from cais.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.shim.protocol import Document

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")
_MAX_PATH = 4096


class Fields:
    """One request. ``verb`` names it in messages."""

    __slots__ = ("_document", "_verb")

    def __init__(self, verb: str, document: Document) -> None:
        self._verb = verb
        self._document = document

    def id(self, name: str = "id") -> str:
        """Return an identifier; it is safe as a file name."""
        value = self._document.get(name)
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise self._wrong(name, "an identifier")
        return value

    def optional_id(self, name: str) -> str | None:
        """Return an identifier or None."""
        return None if self._document.get(name) is None else self.id(name)

    def path(self, name: str) -> str:
        """Return an absolute path."""
        value = self._document.get(name)
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise self._wrong(name, "an absolute path")
        if len(value) > _MAX_PATH:
            raise self._wrong(name, "a shorter path")
        return value

    def optional_path(self, name: str) -> str | None:
        """Return an absolute path or None."""
        return None if self._document.get(name) is None else self.path(name)

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        value = self._document.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def number(self, name: str, low: int = 0, high: int = 1 << 62) -> int:
        """Return a whole number from ``low`` to ``high``."""
        value = self._document.get(name)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def optional_number(self, name: str, low: int = 0) -> int | None:
        """Return a whole number or None."""
        return None if self._document.get(name) is None else self.number(name, low)

    def numbers(self, name: str) -> list[int]:
        """Return a list of whole numbers."""
        value = self._document.get(name)
        if not isinstance(value, list) or any(type(item) is not int for item in value):
            raise self._wrong(name, "a list of whole numbers")
        return value

    def identity_map(self, name: str) -> list[tuple[int, int, int]]:
        """Return the lines of a user namespace's map: inside, outside, count."""
        value = self._document.get(name)
        if not isinstance(value, list) or not all(map(_is_triple, value)):
            raise self._wrong(name, "a list of three whole numbers each")
        return [(inside, outside, count) for inside, outside, count in value]

    def strings(self, name: str) -> list[str]:
        """Return a list of texts."""
        value = self._document.get(name)
        if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts")
        return value

    def size(self, name: str) -> tuple[int, int] | None:
        """Return rows and columns of a terminal, or None."""
        if self._document.get(name) is None:
            return None
        numbers = self.numbers(name)
        if len(numbers) != 2 or not all(0 <= number <= 0xFFFF for number in numbers):
            raise self._wrong(name, "rows and columns")
        return numbers[0], numbers[1]

    def nested(self, name: str) -> Fields | None:
        """Return the fields of an object, or None."""
        if self._document.get(name) is None:
            return None
        return Fields(f"{self._verb} {name}", self.document(name))

    def document(self, name: str) -> Document:
        """Return an object as it is."""
        value = self._document.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def texts(self, name: str) -> Mapping[str, str]:
        """Return an object whose values are texts."""
        value = self.document(name)
        if any(not isinstance(item, str) for item in value.values()):
            raise self._wrong(name, "an object of texts")
        return value

    def _wrong(self, name: str, wanted: str) -> InvalidArgumentError:
        return InvalidArgumentError(f"{self._verb}: {name} must be {wanted}")


def _is_triple(line: object) -> bool:
    return isinstance(line, list) and len(line) == 3 and all(type(item) is int for item in line)
