"""From a request's head to the handler of its route.

Paths are decoded once and must then be clean: what holds an empty, ``.`` or ``..`` segment is
answered with a redirect to its clean form, as dockerd does, and never reaches a handler. The
version prefix is optional and applies to every route.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from cais.api.errors import PageNotFoundError, error_response
from cais.api.query import Query
from cais.api.request import Request
from cais.api.versions import NEWEST, parse_version
from cais.errors import InvalidArgumentError
from cais.http.errors import ClientGoneError
from cais.http.messages import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from cais.http.connection import Head
    from cais.http.messages import Answer, Body

    Handler = Callable[..., Awaitable[Answer]]

_PARAMETER = re.compile(r"\{(\w+)(\*?)\}")
_PREFIX = re.compile(r"/v([0-9.]+)(/.*)")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Route(NamedTuple):
    """One method and path, e.g. ``/containers/{id}/start``; ``{name*}`` may hold slashes."""

    method: str
    path: str
    handler: Handler
    """Called with the request and the path's parameters by name."""


class _UncleanPathError(Exception):
    """The path is not in its shortest form, which is ``path``."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Router:
    """Finds routes; an application for ``connection.Connection``.

    Args:
        routes: tried in their order.
        fallback: makes further routes when none of these fits, once.

    """

    def __init__(
        self, routes: Iterable[Route], fallback: Callable[[], Iterable[Route]] = tuple
    ) -> None:
        self._table: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        self._fallback: Callable[[], Iterable[Route]] | None = fallback
        self._add(routes)

    async def __call__(self, head: Head, body: Body) -> Answer:
        """Answer a request; every failure but the client's going becomes an error answer."""
        try:
            request = _request(head, body)
            handler, parameters = self._find(request.method, request.path)
            return await handler(request, **parameters)
        except ClientGoneError:
            raise
        except _UncleanPathError as exc:
            query = head.target.partition("?")[2]
            location = quote(exc.path) + ("?" + query if query else "")
            return Response(301, headers={"Location": location})
        except Exception as exc:  # noqa: BLE001 - the one place where any failure becomes a 500
            return error_response(exc, f"{head.method} {_path_only(head.target)}")

    def _find(self, method: str, path: str) -> tuple[Handler, dict[str, Any]]:
        for pattern, handler in self._table.get((method, _first_segment(path)), ()):
            if found := pattern.fullmatch(path):
                return handler, found.groupdict()
        if self._fallback is not None:
            fallback, self._fallback = self._fallback, None
            self._add(fallback())
            return self._find(method, path)
        raise PageNotFoundError

    def _add(self, routes: Iterable[Route]) -> None:
        for method, path, handler in routes:
            key = (method, _first_segment(path))
            self._table.setdefault(key, []).append((_compile(path), handler))


def _request(head: Head, body: Body) -> Request:
    raw_path, _, raw_query = _origin_form(head.target).partition("?")
    path = _decode_path(raw_path)
    version = NEWEST
    if prefixed := _PREFIX.fullmatch(path):
        version, path = parse_version(prefixed[1]), prefixed[2]
    return Request(
        head.method, path, Query(raw_query), head.headers, body, version,
        wants_upgrade="upgrade" in head.headers,
    )  # fmt: skip


def _origin_form(target: str) -> str:
    if target.startswith("/"):
        return target
    scheme, _, rest = target.partition("://")
    if scheme.lower() in {"http", "https"}:
        _, slash, path = rest.partition("/")
        return slash + path or "/"
    raise InvalidArgumentError("bad request: the target is not a path")


def _decode_path(raw: str) -> str:
    encoded = raw.encode("latin-1")
    if _BAD_ESCAPE.search(encoded):
        raise InvalidArgumentError("bad request: malformed escape in the path")
    try:
        path = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as exc:
        raise InvalidArgumentError("bad request: the path is not UTF-8") from exc
    if _CONTROL.search(path):
        raise InvalidArgumentError("bad request: control character in the path")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/") and clean != "/":
        clean += "/"
    if clean != path:
        raise _UncleanPathError(clean)
    return path


def _path_only(target: str) -> str:
    """Leave out the query, which may hold what does not belong in a log."""
    return ascii(target.partition("?")[0][:256])[1:-1]


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1]


def _compile(path: str) -> re.Pattern[str]:
    pattern = ""
    end = 0
    for found in _PARAMETER.finditer(path):
        name, several = found.groups()
        pattern += re.escape(path[end : found.start()])
        pattern += f"(?P<{name}>{'.+' if several else '[^/]+'})"
        end = found.end()
    return re.compile(pattern + re.escape(path[end:]))
