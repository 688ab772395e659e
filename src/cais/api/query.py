"""What the Engine API's query strings hold beside plain values.

Spec: docker-engine-api v1.51, "filters" parameters; the texts are dockerd's.
"""

from __future__ import annotations

import re

from cais.errors import InvalidArgumentError
from cais.http import query
from cais.spec import strict_json


class Query(query.Query):
    """The decoded parameters of one request."""

    __slots__ = ()

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
