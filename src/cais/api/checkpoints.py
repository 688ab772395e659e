"""Routes of ``docker checkpoint``, which Docker has in experimental mode only, and so have we.

Spec: dockerd's experimental routes ``/containers/{id}/checkpoints``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.bodies import read_object
from cais.api.router import Route
from cais.errors import InvalidArgumentError, UnsupportedError
from cais.http.messages import Response, json_response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.api.request import Request
    from cais.http.messages import Answer

DISABLED = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental "
    "mode in order to enable it."
)


class CheckpointBackend(Protocol):
    """What these routes need of the engine."""

    async def create(
        self, ref: str, name: str, *, directory: str = "", leave_running: bool = False
    ) -> None:
        """Write a checkpoint."""
        ...

    async def list(self, ref: str, directory: str = "") -> list[dict[str, Any]]:
        """Name the checkpoints."""
        ...

    async def remove(self, ref: str, name: str, directory: str = "") -> None:
        """Delete a checkpoint."""
        ...


class CheckpointRoutes:
    """Handlers of the checkpoints of a container."""

    def __init__(self, checkpoints: CheckpointBackend, *, experimental: bool) -> None:
        self._checkpoints = checkpoints
        self._experimental = experimental

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("GET", "/containers/{id}/checkpoints", self.list),
            Route("POST", "/containers/{id}/checkpoints", self.create),
            Route("DELETE", "/containers/{id}/checkpoints/{checkpoint}", self.remove),
        )

    async def list(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Name the checkpoints of a container."""
        self._check()
        return json_response(await self._checkpoints.list(id, request.query.text("dir")))

    async def create(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Write a checkpoint; the container ends unless ``Exit`` is false."""
        self._check()
        body = await read_object(request)
        name, directory = body.get("CheckpointID", ""), body.get("CheckpointDir", "")
        leaves = body.get("Exit", False)
        if not (isinstance(name, str) and isinstance(directory, str) and isinstance(leaves, bool)):
            raise InvalidArgumentError("invalid JSON: CheckpointID, CheckpointDir or Exit")
        await self._checkpoints.create(id, name, directory=directory, leave_running=not leaves)
        return Response(201)

    async def remove(
        self,
        request: Request,
        id: str,  # noqa: A002 - the path's word
        checkpoint: str,
    ) -> Answer:
        """Delete a checkpoint."""
        self._check()
        await self._checkpoints.remove(id, checkpoint, request.query.text("dir"))
        return Response(204)

    def _check(self) -> None:
        if not self._experimental:
            raise UnsupportedError(DISABLED)
