"""Routes of the Image tag: list, inspect, history, tag, remove, load, save, import.

Progress is a stream of JSON lines; a failure after the head is its last line, as clients expect.

Spec: docker-engine-api v1.51, "Image".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.begun_streams import begin_stream
from cais.api.progress import lines, progress
from cais.api.router import Route
from cais.api.versions import reshape_image, reshape_image_summary
from cais.errors import InvalidArgumentError
from cais.http.messages import Response, Stream, json_response
from cais.spec.platform import decode_platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from cais.api.request import Request
    from cais.api.versions import ApiVersion
    from cais.http.messages import Answer
    from cais.spec.platform import Platform

_TAR = "application/x-tar"


class ImageBackend(Protocol):
    """What these routes need of the engine."""

    async def inspect(self, ref: str, platform: Platform | None = None) -> dict[str, Any]:
        """Return one image."""

    async def history(self, ref: str, platform: Platform | None = None) -> list[dict[str, Any]]:
        """Return the layers' history, newest first."""

    async def tag(self, ref: str, repository: str, tag: str | None = None) -> None:
        """Give an image another name."""

    async def remove(
        self, ref: str, *, force: bool = False, prune: bool = True
    ) -> list[dict[str, str]]:
        """Untag, and delete what no name is left of."""

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Delete unused images."""

    def load(
        self,
        source: AsyncIterator[bytes],
        *,
        quiet: bool = False,
        platform: Platform | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Load an archive; yields progress messages."""

    def save(self, refs: Sequence[str], platform: Platform | None = None) -> AsyncIterator[bytes]:
        """Write images as one archive."""

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> str:
        """Make an image of one root file system archive; return its id."""

    def import_url(
        self,
        url: str,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        """Make an image of an archive that the daemon fetches; yields progress messages."""

    async def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - the API's word
        filters: Mapping[str, Sequence[str]] | None = None,
        shared_size: bool = False,
    ) -> list[dict[str, Any]]:
        """Return summaries, newest first."""


class ImageRoutes:
    """Handlers of the Image tag."""

    def __init__(self, images: ImageBackend, pull: Callable[[Request], Awaitable[Answer]]) -> None:
        self._images = images
        self._pull = pull

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("GET", "/images/json", self.list),
            Route("GET", "/images/get", self.save_many),
            Route("GET", "/images/{name*}/get", self.save),
            Route("GET", "/images/{name*}/json", self.inspect),
            Route("GET", "/images/{name*}/history", self.history),
            Route("POST", "/images/load", self.load),
            Route("POST", "/images/create", self.create),
            Route("POST", "/images/prune", self.prune),
            Route("POST", "/images/{name*}/tag", self.tag),
            Route("DELETE", "/images/{name*}", self.remove),
        )

    async def list(self, request: Request) -> Answer:
        """List the images."""
        query = request.query
        filters = query.filters()
        if request.version < (1, 41) and (reference := query.text("filter")):
            filters.setdefault("reference", []).append(reference)
        shared = query.flag("shared-size") and request.version >= (1, 42)
        rows = await self._images.list(all=query.flag("all"), filters=filters, shared_size=shared)
        return json_response([reshape_image_summary(row, request.version) for row in rows])

    async def inspect(self, request: Request, name: str) -> Answer:
        """Describe one image."""
        platform = _platform(request, since=(1, 49))
        if platform and request.query.flag("manifests"):
            raise InvalidArgumentError(
                "conflicting options: manifests and platform options cannot both be set"
            )
        document = await self._images.inspect(name, platform)
        return json_response(reshape_image(document, request.version))

    async def history(self, request: Request, name: str) -> Answer:
        """Tell how an image came about."""
        platform = _platform(request, since=(1, 48))
        return json_response(await self._images.history(name, platform))

    async def tag(self, request: Request, name: str) -> Answer:
        """Give an image another name."""
        repository, tag = request.query.text("repo"), request.query.text("tag")
        if not repository:
            raise InvalidArgumentError("repository name must have at least one component")
        await self._images.tag(name, repository, tag or None)
        return Response(201)

    async def remove(self, request: Request, name: str) -> Answer:
        """Untag or delete an image."""
        query = request.query
        return json_response(
            await self._images.remove(
                name, force=query.flag("force"), prune=not query.flag("noprune")
            )
        )

    async def prune(self, request: Request) -> Answer:
        """Delete the images nothing uses."""
        return json_response(await self._images.prune(request.query.filters()))

    async def load(self, request: Request) -> Answer:
        """Load an archive, telling the progress."""
        messages = self._images.load(
            aiter(request.body),
            quiet=request.query.flag("quiet", default=True),
            platform=_platform(request, since=(1, 48)),
        )
        return Stream(lines(messages))

    async def save(self, request: Request, name: str) -> Answer:
        """Write one image as an archive."""
        chunks = self._images.save([name], _platform(request, since=(1, 48)))
        return await begin_stream(chunks, _TAR)

    async def save_many(self, request: Request) -> Answer:
        """Write several images as one archive."""
        names = [name for value in request.query.texts("names") for name in value.split(",")]
        if not names:
            raise InvalidArgumentError("no image names given")
        chunks = self._images.save(names, _platform(request, since=(1, 48)))
        return await begin_stream(chunks, _TAR)

    async def create(self, request: Request) -> Answer:
        """Pull an image, or import a root file system."""
        if request.query.text("fromImage"):
            return await self._pull(request)
        query, source = request.query, request.query.text("fromSrc")
        wanted: dict[str, Any] = {
            **{name: query.text(name) for name in ("tag", "message", "platform")},
            "repository": query.text("repo"),
            "changes": query.texts("changes"),
        }
        if source and source != "-":
            return await progress(self._images.import_url(source, **wanted))
        image_id = await self._images.import_(aiter(request.body), **wanted)
        return json_response({"status": image_id})


def _platform(request: Request, *, since: ApiVersion) -> Platform | None:
    """Return the platform a client of version ``since`` or later asks for.

    Raises:
        InvalidArgumentError: malformed, or several.

    """
    given = request.query.texts("platform") if request.version >= since else []
    if len(given) > 1:
        raise InvalidArgumentError("multiple platform parameters not supported")
    return decode_platform(given[0]) if given and given[0] else None
