"""Sizes as people write them: ``64m``, ``1.5g``, ``512``; and back.

Spec: Docker's units: binary for memory (``ram_bytes``), decimal for what is printed of images
(``human_size``); a suffix is one of k m g t p, then optionally ``i`` or ``ib`` or ``b``.
"""

from __future__ import annotations

import re

from cais.errors import InvalidArgumentError

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
MAX_BYTES = 2**63 - 1


class InvalidSizeError(InvalidArgumentError):
    """Not a size; the text is Docker's."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid size: '{text[:64]}'")
        self.text = text


def ram_bytes(text: str) -> int:
    """Parse a size with binary units: ``64m`` is 67108864.

    Raises:
        InvalidSizeError: not a size, or more than 2**63 - 1.

    """
    return _parse(text, 1024)


def from_human_size(text: str) -> int:
    """Parse a size with decimal units: ``64m`` is 64000000.

    Raises:
        InvalidSizeError: not a size, or more than 2**63 - 1.

    """
    return _parse(text, 1000)


def human_size(size_bytes: float, precision: int = 4) -> str:
    """Print with decimal units and ``precision`` significant digits: ``1.234MB``."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_DECIMAL) - 1:
        size /= 1000
        unit += 1
    return f"{size:.{precision}g}{_DECIMAL[unit]}"


def _parse(text: str, base: int) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidSizeError(text)
    number, unit = match.groups()
    factor = base ** _EXPONENTS[unit.lower()]
    # Whole numbers stay exact: a float has 53 bits.
    size = (
        int(number) * factor if len(number) < 20 and number.isdecimal() else _scaled(number, factor)
    )
    if size > MAX_BYTES:
        raise InvalidSizeError(text)
    return size


def _scaled(number: str, factor: int) -> int:
    product = float(number) * factor
    return int(product) if product <= MAX_BYTES else MAX_BYTES + 1
