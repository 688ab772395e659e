"""Routes of the Volume tag.

Spec: docker-engine-api v1.51, "Volume".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.bodies import read_object
from cais.api.router import Route
from cais.errors import InvalidArgumentError, UnsupportedError
from cais.http.messages import Response, json_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cais.api.request import Request
    from cais.http.messages import Answer


class VolumeBackend(Protocol):
    """What these routes need of the engine."""

    async def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Return ``{Volumes, Warnings}``."""
        ...

    async def inspect(self, name: str) -> dict[str, Any]:
        """Return one volume."""
        ...

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create a volume, or return the one of that name."""
        ...

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume."""
        ...

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove unused volumes."""
        ...


class VolumeRoutes:
    """Handlers of the Volume tag."""

    def __init__(self, volumes: VolumeBackend) -> None:
        self._volumes = volumes

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("GET", "/volumes", self.list),
            Route("POST", "/volumes/create", self.create),
            Route("POST", "/volumes/prune", self.prune),
            Route("GET", "/volumes/{name}", self.inspect),
            Route("DELETE", "/volumes/{name}", self.remove),
        )

    async def list(self, request: Request) -> Answer:
        """List the volumes."""
        return json_response(await self._volumes.list(request.query.filters()))

    async def inspect(self, request: Request, name: str) -> Answer:
        """Describe one volume."""
        del request
        return json_response(await self._volumes.inspect(name))

    async def create(self, request: Request) -> Answer:
        """Create a volume."""
        body = await read_object(request)
        if body.get("ClusterVolumeSpec"):
            raise UnsupportedError("cluster volumes are not supported by this version of cais")
        volume = await self._volumes.create(
            _text(body, "Name"),
            driver=_text(body, "Driver") or "local",
            driver_opts=_text_map(body, "DriverOpts"),
            labels=_text_map(body, "Labels"),
        )
        return json_response(volume, 201)

    async def remove(self, request: Request, name: str) -> Answer:
        """Remove one volume."""
        await self._volumes.remove(name, force=request.query.flag("force"))
        return Response(204)

    async def prune(self, request: Request) -> Answer:
        """Remove the volumes nothing uses; before 1.42 also the named ones."""
        filters = request.query.filters()
        if request.version < (1, 42):
            filters["all"] = ["true"]
        return json_response(await self._volumes.prune(filters))


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"invalid JSON: {name} is not a string")
    return value


def _text_map(body: Mapping[str, Any], name: str) -> dict[str, str]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidArgumentError(f"invalid JSON: {name} is not a map of strings")
    return dict(value)
