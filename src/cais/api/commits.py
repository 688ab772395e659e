"""Routes that turn what a container changed into something else: commit, changes, export.

Spec: docker-engine-api v1.51, "Container" and "Image".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.begun_streams import begin_stream
from cais.api.bodies import read_json_bytes
from cais.api.router import Route
from cais.errors import InvalidArgumentError
from cais.http.messages import json_response
from cais.spec.bodies import parse_create_body
from cais.spec.container import ContainerConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from cais.api.request import Request
    from cais.http.messages import Answer


class CommitBackend(Protocol):
    """Containers into images."""

    async def commit(
        self,
        ref: str,
        *,
        repository: str = "",
        tag: str = "",
        author: str = "",
        comment: str = "",
        pause: bool = True,
        changes: Sequence[str] = (),
        config: ContainerConfig | None = None,
    ) -> str:
        """Make an image of a container; return its id."""
        ...


class ChangesBackend(Protocol):
    """What containers have in their roots."""

    async def changes(self, ref: str) -> list[dict[str, Any]]:
        """Return what a container changed."""
        ...

    def export(self, ref: str) -> AsyncIterator[bytes]:
        """Write a container's root file system as an archive."""
        ...


class CommitRoutes:
    """Handlers of ``/commit``, ``/containers/{id}/changes`` and ``/containers/{id}/export``."""

    def __init__(self, commits: CommitBackend, changes: ChangesBackend) -> None:
        self._commits = commits
        self._changes = changes

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("POST", "/commit", self.commit),
            Route("GET", "/containers/{id}/changes", self.changes),
            Route("GET", "/containers/{id}/export", self.export),
        )

    async def commit(self, request: Request) -> Answer:
        """Make an image of a container."""
        query = request.query
        if not query.text("container"):
            raise InvalidArgumentError("no container given")
        image_id = await self._commits.commit(
            query.text("container"),
            repository=query.text("repo"),
            tag=query.text("tag"),
            author=query.text("author"),
            comment=query.text("comment"),
            pause=query.flag("pause", default=True),
            changes=query.texts("changes"),
            config=await _config(request),
        )
        return json_response({"Id": image_id}, 201)

    async def changes(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Tell what a container changed."""
        del request
        return json_response(await self._changes.changes(id) or None)

    async def export(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Write a container's root file system."""
        del request
        return await begin_stream(self._changes.export(id), "application/octet-stream")


async def _config(request: Request) -> ContainerConfig | None:
    """Return the configuration in the body; None if there is none."""
    raw = (await read_json_bytes(request)).strip()
    if raw in (b"", b"null"):
        return None
    config = parse_create_body(raw).config
    return None if config == ContainerConfig() else config
