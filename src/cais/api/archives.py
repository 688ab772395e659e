"""Routes for files in and out of containers: ``docker cp``.

Spec: docker-engine-api v1.51, "Container": ContainerArchiveInfo, ContainerArchive,
PutContainerArchive.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Protocol

from cais.api.begun_streams import begin_stream
from cais.api.router import Route
from cais.errors import InvalidArgumentError
from cais.http.messages import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cais.api.request import Request
    from cais.http.messages import Answer

_STAT = "X-Docker-Container-Path-Stat"
_TAR = "application/x-tar"


class ArchiveBackend(Protocol):
    """Files of containers."""

    async def stat(self, ref: str, path: str) -> dict[str, Any]:
        """Describe what is at a path."""
        ...

    async def get(self, ref: str, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """Return what is at a path: its description, and it as an archive."""
        ...

    async def put(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keeps_kinds: bool = False,
        gives_to_user: bool = False,
    ) -> None:
        """Unpack an archive into a directory."""
        ...


class ArchiveRoutes:
    """Handlers of ``/containers/{id}/archive``."""

    def __init__(self, archives: ArchiveBackend) -> None:
        self._archives = archives

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        path = "/containers/{id}/archive"
        return (
            Route("HEAD", path, self.describe),
            Route("GET", path, self.get),
            Route("PUT", path, self.put),
        )

    async def describe(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Describe a file of a container."""
        return Response(headers=_headers(await self._archives.stat(id, _path(request))))

    async def get(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Give a file or directory of a container as an archive."""
        facts, chunks = await self._archives.get(id, _path(request))
        return await begin_stream(chunks, _TAR, _headers(facts))

    async def put(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Unpack an archive into a directory of a container."""
        await self._archives.put(
            id,
            _path(request),
            aiter(request.body),
            keeps_kinds=request.query.flag("noOverwriteDirNonDir"),
            gives_to_user=request.query.flag("copyUIDGID"),
        )
        return Response()


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidArgumentError("bad parameter: path cannot be empty")
    return path


def _headers(facts: dict[str, Any]) -> dict[str, str]:
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
    return {_STAT: base64.b64encode(text.encode("utf-8", "replace")).decode()}
