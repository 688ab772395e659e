"""Routes of the Network tag that exist by now: reading, and pruning what cannot be made yet.

Spec: docker-engine-api v1.51, "Network".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.router import Route
from cais.http.messages import json_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cais.api.request import Request
    from cais.http.messages import Answer


class NetworkBackend(Protocol):
    """What these routes need of the engine."""

    async def list(
        self, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Return the networks without their containers."""
        ...

    async def inspect(self, ref: str) -> dict[str, Any]:
        """Return one network."""
        ...

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove unused networks."""
        ...


class NetworkRoutes:
    """Handlers of the Network tag."""

    def __init__(self, networks: NetworkBackend) -> None:
        self._networks = networks

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("GET", "/networks", self.list),
            Route("POST", "/networks/prune", self.prune),
            Route("GET", "/networks/{id}", self.inspect),
        )

    async def list(self, request: Request) -> Answer:
        """List the networks."""
        return json_response(await self._networks.list(request.query.filters()))

    async def inspect(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Describe one network."""
        del request
        return json_response(await self._networks.inspect(id))

    async def prune(self, request: Request) -> Answer:
        """Remove the networks nothing uses."""
        return json_response(await self._networks.prune(request.query.filters()))
