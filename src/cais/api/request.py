"""What a handler of the Engine API is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.api.query import Query
    from cais.http.messages import Body


@dataclass(slots=True)
class Request:
    """One request, its head parsed and its path decoded once."""

    method: str
    path: str
    """Decoded, without the version prefix."""

    query: Query
    headers: Mapping[str, str]
    """Lower-case names; of a repeated field, the first."""

    body: Body
    version: tuple[int, int]
    """The API version the client asked for: the newest one if it named none."""

    wants_upgrade: bool = False
