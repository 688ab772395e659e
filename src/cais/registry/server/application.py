"""The registry as one application: who may do what, and what becomes of failures."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cais.http.errors import ClientGoneError
from cais.registry.server.errors import RefusalError, error_response
from cais.registry.server.passwords import unauthorized
from cais.registry.server.routes import Deed, Routes
from cais.spec.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.http.connection import Head
    from cais.http.messages import Answer, Body
    from cais.registry.server.passwords import Passwords
    from cais.registry.server.pool import Run
    from cais.registry.server.routes import Route

log = logging.getLogger(__name__)

HEADERS = (
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("Server", f"Cais/{VERSION} (registry)"),
    ("X-Content-Type-Options", "nosniff"),
)
"""Sent with every answer."""


class Application:
    """Answers every request of a ``cais.http`` server.

    Args:
        routes: what there is.
        passwords: without one, anybody may do what the registry allows.
        check: runs what blocks to verify a password.
        deeds: what the registry allows.

    """

    def __init__(
        self,
        routes: Iterable[Route],
        passwords: Passwords | None,
        check: Run,
        deeds: frozenset[Deed],
    ) -> None:
        self._routes = Routes(routes)
        self._passwords = passwords
        self._check = check
        self._deeds = deeds

    async def __call__(self, head: Head, body: Body) -> Answer:
        """Answer a request; every failure but the client's going becomes an error answer."""
        try:
            await self._authenticate(head)
            route, call = self._routes.find(head, body)
            self._permit(route.deed)
            return await route.handler(call)
        except ClientGoneError:
            raise
        except Exception as exc:  # noqa: BLE001 - the one place where any failure becomes a 500
            return error_response(exc, f"{head.method} {_path_only(head.target)}")

    def _permit(self, deed: Deed) -> None:
        if deed not in self._deeds:
            message = "deleting is disabled" if deed is Deed.DELETE else "the registry is read-only"
            raise RefusalError("UNSUPPORTED", message)

    async def _authenticate(self, head: Head) -> None:
        if self._passwords is None:
            return
        authorization = head.headers.get("authorization", "")
        if not authorization:
            raise unauthorized("authentication required")
        if not self._passwords.is_known(authorization):
            await self._check(self._passwords.check, authorization)


def _path_only(target: str) -> str:
    """Leave out the query, which may hold what does not belong in a log."""
    return ascii(target.partition("?")[0][:256])[1:-1]
