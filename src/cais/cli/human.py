"""Durations and ids as Docker prints them, and times as it reads them."""

from __future__ import annotations

import re
import time
from calendar import timegm


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
