"""From a path to what answers it. A repository's name may hold slashes, so patterns end first.

Spec: OCI distribution-spec 1.1, "Endpoints".
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from cais.errors import InvalidArgumentError
from cais.http.query import Query
from cais.registry.server.errors import RefusalError
from cais.registry.server.fields import parse_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from cais.http.connection import Head
    from cais.http.messages import Answer, Body

    Handler = Callable[["Call"], Awaitable[Answer]]

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PLACE = re.compile(r"\{(\w+)\}")


class Deed(enum.Enum):
    """What a route does to the registry, which decides who may use it."""

    READ = enum.auto()
    WRITE = enum.auto()
    DELETE = enum.auto()


@dataclass(slots=True)
class Call:
    """One request, its path taken apart."""

    method: str
    query: Query
    headers: Mapping[str, str]
    """Lower-case names; of a repeated field, the first."""

    body: Body
    repository: str
    """Valid; "" where the path has none."""

    place: str
    """What follows in the path: a digest, a tag, an upload's id. Not checked yet."""


class Route(NamedTuple):
    """A path, ``/v2/{name}/blobs/{place}``, one method, and what they do."""

    method: str
    path: str
    deed: Deed
    handler: Handler


class Routes:
    """Finds routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._table: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
        for route in routes:
            _, methods = self._table.setdefault(route.path, (_compile(route.path), {}))
            methods[route.method] = route

    def find(self, head: Head, body: Body) -> tuple[Route, Call]:
        """Return the route of a request.

        Raises:
            RefusalError: NAME_INVALID, UNSUPPORTED (no such method), 404 (no such path).

        """
        raw_path, _, raw_query = head.target.partition("?")
        path = _decode(raw_path)
        for pattern, methods in self._table.values():
            if found := pattern.fullmatch(path):
                route = methods.get(head.method)
                if route is None:
                    raise _no_such_method(methods)
                parts = found.groupdict()
                name = parse_name(parts["name"]) if "name" in parts else ""
                call = Call(
                    head.method, Query(raw_query), head.headers, body, name, parts.get("place", "")
                )
                return route, call
        raise RefusalError("NAME_UNKNOWN", "page not found")


def _decode(raw: str) -> str:
    if not raw.startswith("/") or _BAD_ESCAPE.search(raw):
        raise InvalidArgumentError("malformed path")
    try:
        return unquote_to_bytes(raw.encode("latin-1")).decode()
    except UnicodeDecodeError as exc:
        raise InvalidArgumentError("the path is not UTF-8") from exc


def _no_such_method(methods: Mapping[str, Route]) -> RefusalError:
    return RefusalError(
        "UNSUPPORTED", "method not allowed", headers={"Allow": ", ".join(sorted(methods))}
    )


def _compile(path: str) -> re.Pattern[str]:
    kinds = {"name": ".+", "place": "[^/]+"}
    pattern, end = "", 0
    for found in _PLACE.finditer(path):
        pattern += f"{re.escape(path[end : found.start()])}(?P<{found[1]}>{kinds[found[1]]})"
        end = found.end()
    return re.compile(pattern + re.escape(path[end:]), re.DOTALL)
