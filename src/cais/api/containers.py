"""Routes of the Container tag but for the streams (``streams``) and exec (``execs``).

Spec: docker-engine-api v1.51, "Container".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.bodies import read_json_bytes
from cais.api.router import Route
from cais.api.versions import (
    reshape_container,
    reshape_create_request,
)
from cais.errors import InvalidArgumentError
from cais.http.messages import Response, json_response
from cais.spec.bodies import parse_create_body, parse_update_body
from cais.spec.container import ContainerConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cais.api.request import Request
    from cais.http.messages import Answer
    from cais.spec.container import CreateBody, UpdateBody


class ContainerBackend(Protocol):
    """Containers as things."""

    async def create(
        self, name: str | None, body: CreateBody, platform: str | None = None
    ) -> tuple[str, list[str]]:
        """Create a container; return its id and warnings."""
        ...

    async def inspect(self, ref: str, *, size: bool = False) -> dict[str, Any]:
        """Return one container in its newest shape."""
        ...

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name."""
        ...

    async def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container."""
        ...

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove the containers that do not run."""
        ...

    async def update(self, ref: str, body: UpdateBody) -> list[str]:
        """Change limits; return warnings."""
        ...

    async def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - the API's word
        limit: int | None = None,
        size: bool = False,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return summaries, newest first."""
        ...


class ContainerRoutes:
    """Handlers for containers as things."""

    def __init__(self, containers: ContainerBackend) -> None:
        self._containers = containers

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("POST", "/containers/create", self.create),
            Route("GET", "/containers/json", self.list),
            Route("POST", "/containers/prune", self.prune),
            Route("GET", "/containers/{id}/json", self.inspect),
            Route("POST", "/containers/{id}/rename", self.rename),
            Route("POST", "/containers/{id}/update", self.update),
            Route("DELETE", "/containers/{id}", self.remove),
        )

    async def create(self, request: Request) -> Answer:
        """Create a container."""
        raw = await read_json_bytes(request) or b"{}"
        body = parse_create_body(reshape_create_request(raw, request.version))
        if body.config == ContainerConfig():
            raise InvalidArgumentError("config cannot be empty in order to create a container")
        query = request.query
        platform = query.text("platform") if request.version >= (1, 41) else ""
        container_id, warnings = await self._containers.create(query.text("name"), body, platform)
        return json_response({"Id": container_id, "Warnings": warnings}, 201)

    async def list(self, request: Request) -> Answer:
        """List containers."""
        query = request.query
        filters = query.filters()
        for name in ("before", "since"):  # parameters of their own before there were filters
            if value := query.text(name):
                filters.setdefault(name, []).append(value)
        rows = await self._containers.list(
            all=query.flag("all"),
            limit=query.integer("limit"),
            size=query.flag("size"),
            filters=filters,
        )
        return json_response([reshape_container(row, request.version) for row in rows])

    async def prune(self, request: Request) -> Answer:
        """Remove the containers that do not run."""
        return json_response(await self._containers.prune(request.query.filters()))

    async def inspect(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Describe one container."""
        document = await self._containers.inspect(id, size=request.query.flag("size"))
        return json_response(reshape_container(document, request.version))

    async def rename(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Give a container another name."""
        await self._containers.rename(id, request.query.text("name"))
        return Response(204)

    async def update(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Change limits and restart policy."""
        raw = await read_json_bytes(request)
        warnings = await self._containers.update(id, parse_update_body(raw or b"{}"))
        return json_response({"Warnings": warnings or None})

    async def remove(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Remove one container."""
        query = request.query
        await self._containers.remove(
            id, force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
        )
        return Response(204)
