"""``--filter key=value`` as the API wants it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable


def encode_filters(words: Iterable[str]) -> str | None:
    """Return the JSON of name to values, None without filters. Raises InvalidArgumentError."""
    filters: dict[str, list[str]] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise InvalidArgumentError(
                f'invalid argument "{word}" for "-f, --filter" flag: invalid filter {word!r}'
            )
        filters.setdefault(key.strip().lower(), []).append(value.strip())
    return json.dumps(filters) if filters else None
