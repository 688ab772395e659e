"""Durations, sizes and ids as Docker prints them, and sizes as it reads them."""

from __future__ import annotations

import re
import time
from calendar import timegm

from cais.errors import InvalidArgumentError

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"(?i)(\d+(?:\.\d+)?) ?([kmgtp])?i?b?")
_DURATION_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def format_size(size_bytes: float, digits: int = 3) -> str:
    """Return a decimal size of ``digits`` significant digits: ``4.26MB``."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_DECIMAL) - 1:
        size /= 1000
        unit += 1
    return f"{size:.{digits}g}{_DECIMAL[unit]}"


def parse_size(text: str) -> int:
    """Return the bytes ``64m`` means (binary units, as Docker's memory flags).

    Raises:
        InvalidArgumentError: not a size.

    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgumentError(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** _UNITS[(match[2] or "").lower()])


def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds ``1m30s`` means. Raises InvalidArgumentError."""
    parts = _DURATION_PART.findall(text)
    if not text or (text != "0" and "".join(number + unit for number, unit in parts) != text):
        raise InvalidArgumentError(f'invalid duration "{text}"')
    return int(sum(float(number) * _DURATION_UNITS_NS[unit] for number, unit in parts))


def format_duration(seconds: float) -> str:
    """Return about how long: ``Less than a second``, ``About a minute``, ``3 weeks``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    days = hours // 24
    for is_it, text in (
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (days < 14, f"{days} days"),
        (days < 60, f"{days // 7} weeks"),
        (days < 730, f"{days // 30} months"),
    ):
        if is_it:
            return text
    return f"{days // 365} years"


def format_age(created_at: float, now: float | None = None) -> str:
    """Return how long ago a Unix time was; ``N/A`` for none."""
    if created_at <= 0:
        return "N/A"
    return format_duration((time.time() if now is None else now) - created_at) + " ago"


def parse_time(text: str) -> float:
    """Return the Unix time of an RFC 3339 time in UTC or with an offset; 0.0 for Go's zero time."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text.strip())
    if match is None or text.startswith("0001-"):
        return 0.0
    seconds = timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    offset = 0
    if match[3] != "Z":
        sign = -1 if match[3][0] == "-" else 1
        offset = sign * (int(match[3][1:3]) * 3600 + int(match[3][4:6]) * 60)
    return seconds - offset + float(match[2] or 0)


def short_id(identifier: str) -> str:
    """Return the 12 digits of an id, without its algorithm."""
    return identifier.rpartition(":")[2][:12]


def ellipsis(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` characters, the last an ellipsis if it was longer."""
    return text if len(text) <= width else text[: width - 1] + "…"
