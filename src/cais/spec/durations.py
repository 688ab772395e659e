"""Durations as people write them: ``300ms``, ``1m30s``, ``1.5h``.

Spec: Go's ``time.ParseDuration`` without signs; a number needs a unit, but for ``0``.
"""

from __future__ import annotations

import re

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
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)


def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds ``text`` means.

    Raises:
        InvalidArgumentError: no duration.

    """
    parts = _PART.findall(text)
    if not text or (text != "0" and "".join(number + unit for number, unit in parts) != text):
        raise InvalidArgumentError(f'invalid duration "{text[:64]}"')
    return int(sum(float(number) * _UNITS_NS[unit] for number, unit in parts))
