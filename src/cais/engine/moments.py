"""Moments in filters: Unix seconds, RFC 3339, or a Go duration before now."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cais.errors import InvalidArgumentError

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIX = re.compile(r"\d+(\.\d{1,9})?")


def parse_moment(text: str, now_ns: int) -> int:
    """Return Unix nanoseconds.

    Raises:
        InvalidArgumentError: none of the three forms.

    """
    if _UNIX.fullmatch(text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int(f"{fraction:0<9}")
    if text and (duration := _duration_ns(text)) is not None:
        return now_ns - duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidArgumentError(f"failed to parse time: {text[:64]!r}") from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e9)


def _duration_ns(text: str) -> int | None:
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        return None
    return int(sum(float(number) * _UNITS_NS[unit] for number, unit in parts))
