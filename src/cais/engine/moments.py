"""Moments in filters: Unix seconds, RFC 3339, or a Go duration before now."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.spec.durations import parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNIX = re.compile(r"\d+(\.\d{1,9})?")


def parse_moment(text: str, now_ns: int) -> int:
    """Return Unix nanoseconds.

    Raises:
        InvalidArgumentError: none of the three forms.

    """
    if _UNIX.fullmatch(text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int(f"{fraction:0<9}")
    with contextlib.suppress(InvalidArgumentError):
        return now_ns - parse_duration_ns(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InvalidArgumentError(
            f'failed to parse value as time or duration: "{text[:64]}"'
        ) from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e9)


def parse_until(filters: Mapping[str, Sequence[str]], now_ns: int) -> int | None:
    """Return the moment of a prune's ``until`` in Unix nanoseconds; None: there is none.

    Raises:
        InvalidArgumentError: more than one, or malformed.

    """
    values = filters.get("until", ())
    if len(values) > 1:
        raise InvalidArgumentError("more than one until filter specified")
    return parse_moment(values[0], now_ns) if values else None
