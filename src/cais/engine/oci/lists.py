"""Lists of small numbers as the kernel writes them: ``0-3,8``; bounded before they are expanded.

An unbounded range once let one request take all of a daemon's memory (CVE-2018-20699).
"""

from __future__ import annotations

from cais.errors import InvalidArgumentError

MAX_VALUE = 8192
MAX_LENGTH = 65536


class InvalidListError(InvalidArgumentError):
    """Not a list, or a number in it is too large."""


def parse_numbers(text: str) -> frozenset[int]:
    """Return the numbers of ``0-3,8``; an empty text is an empty set.

    Raises:
        InvalidListError: with Docker's text.

    """
    if len(text) > MAX_LENGTH:
        raise InvalidListError(f"invalid format: longer than {MAX_LENGTH} characters")
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        low = _number(first, part)
        high = _number(last, part) if dash else low
        if high < low:
            raise InvalidListError(f"invalid format: {part[:64]}")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def _number(digits: str, part: str) -> int:
    digits = digits.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidListError(f"invalid format: {part[:64]}")
    if len(digits) > 9 or int(digits) > MAX_VALUE:
        raise InvalidListError(f"value of out range, maximum is {MAX_VALUE}")
    return int(digits)
