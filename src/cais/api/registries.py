"""Routes about registries: pull, push, log in, distribution, search.

Spec: docker-engine-api v1.51, "ImageCreate", "ImagePush", "ImageSearch", "SystemAuth",
"DistributionInspect".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.bodies import read_object
from cais.api.progress import progress
from cais.api.registry_auth import credentials_of, read_credentials
from cais.api.router import Route
from cais.errors import InvalidArgumentError
from cais.http.messages import json_response
from cais.spec.platform import Platform, decode_platform, parse_platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from cais.api.request import Request
    from cais.http.messages import Answer
    from cais.registry.credentials import Credentials


class TransferBackend(Protocol):
    """What these handlers need of the engine; the contracts are ``engine.transfers``'s."""

    def pull(
        self,
        name: str,
        tag: str = "",
        *,
        platform: Platform | None = None,
        credentials: Credentials,
        all_tags: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """Bring an image in; yields progress messages."""

    def push(
        self, name: str, tag: str = "", *, credentials: Credentials
    ) -> AsyncIterator[dict[str, Any]]:
        """Send an image; yields progress messages."""

    async def log_in(self, server: str, credentials: Credentials) -> dict[str, str]:
        """Check credentials."""

    async def describe(self, name: str, credentials: Credentials) -> dict[str, Any]:
        """Say what a registry has under a name."""

    async def search(
        self, term: str, limit: int, filters: Mapping[str, Sequence[str]], credentials: Credentials
    ) -> list[dict[str, Any]]:
        """Return what a registry finds."""


class RegistryRoutes:
    """Handlers of what needs a registry."""

    def __init__(self, transfers: TransferBackend) -> None:
        self._transfers = transfers

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module; ``ImageRoutes.create`` hands pulls to ``pull``."""
        return (
            Route("POST", "/images/{name*}/push", self.push),
            Route("POST", "/auth", self.auth),
            Route("GET", "/distribution/{name*}/json", self.distribution),
            Route("GET", "/images/search", self.search),
        )

    async def pull(self, request: Request) -> Answer:
        """Pull an image, telling the progress; fails with a status if nothing was told yet."""
        query = request.query
        messages = self._transfers.pull(
            query.text("fromImage"),
            query.text("tag"),
            platform=_platform(query.text("platform")),
            credentials=credentials_of(request),
            all_tags=not query.text("tag") and _is_bare(query.text("fromImage")),
        )
        return await progress(messages)

    async def push(self, request: Request, name: str) -> Answer:
        """Push an image, telling the progress."""
        if request.query.text("platform"):
            decode_platform(request.query.text("platform"))
        credentials = credentials_of(request)
        tag = request.query.text("tag")
        return await progress(self._transfers.push(name, tag, credentials=credentials))

    async def auth(self, request: Request) -> Answer:
        """Check a user's credentials at a registry."""
        document = await read_object(request)
        server = document.get("serveraddress") or ""
        if not isinstance(server, str):
            raise InvalidArgumentError("serveraddress is not text")
        return json_response(await self._transfers.log_in(server, read_credentials(document)))

    async def distribution(self, request: Request, name: str) -> Answer:
        """Say what the registry has under a name."""
        return json_response(await self._transfers.describe(name, credentials_of(request)))

    async def search(self, request: Request) -> Answer:
        """Look for images by words."""
        query = request.query
        found = await self._transfers.search(
            query.text("term"),
            query.integer("limit") or 0,
            query.filters(),
            credentials_of(request),
        )
        return json_response(found)


def _is_bare(name: str) -> bool:
    """Whether a name has neither tag nor digest: old clients then mean every tag."""
    return "@" not in name and ":" not in name.rpartition("/")[2]


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    return decode_platform(text) if text.startswith("{") else parse_platform(text)
