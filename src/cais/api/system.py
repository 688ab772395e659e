"""Routes of the System tag: ping, version, info, events, disk use; and of the build cache.

Spec: docker-engine-api v1.51, "System".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from cais.api.router import Route
from cais.api.versions import reshape_disk_use, reshape_event, reshape_info
from cais.errors import InvalidArgumentError
from cais.http.messages import Response, Stream, encode_json, json_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence

    from cais.api.request import Request
    from cais.http.messages import Answer

_TIMESTAMP = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")
_KINDS = ("container", "image", "volume", "build-cache")
_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


class SystemBackend(Protocol):
    """What these routes need of the engine."""

    def version(self) -> dict[str, Any]:
        """Return the document of ``GET /version``."""
        ...

    async def info(self) -> dict[str, Any]:
        """Return the document of ``GET /info``."""
        ...

    def ping(self) -> dict[str, str]:
        """Return the headers that only ping has."""
        ...


class Subscription(Protocol):
    """Events as they happen."""

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """Give event documents until the subscription ends."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class EventBackend(Protocol):
    """The event bus."""

    def subscribe(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> Subscription:
        """Listen from now on, or from the kept events since a Unix time in nanoseconds."""
        ...


class DiskUseBackend(Protocol):
    """What ``/system/df`` needs of the engine."""

    async def report(self, kinds: Collection[str] = ()) -> dict[str, Any]:
        """Measure what is kept; ``kinds``: container, image, volume, build-cache."""
        ...


class SystemRoutes:
    """Handlers of the System tag."""

    def __init__(
        self, system: SystemBackend, events: EventBackend, disk_use: DiskUseBackend
    ) -> None:
        self._system = system
        self._events = events
        self._disk_use = disk_use

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("GET", "/_ping", self.ping),
            Route("HEAD", "/_ping", self.ping),
            Route("GET", "/version", self.version),
            Route("GET", "/info", self.info),
            Route("GET", "/events", self.events),
            Route("GET", "/system/df", self.disk_usage),
            Route("POST", "/build/prune", self.prune_builds),
        )

    async def ping(self, request: Request) -> Answer:
        """Say that the daemon lives, and in the headers what it is."""
        del request
        headers = {**_NO_CACHE, "Builder-Version": "1", "Swarm": "inactive"}
        headers.update(self._system.ping())
        for common in ("Api-Version", "Ostype", "OSType", "Docker-Experimental", "Server"):
            headers.pop(common, None)  # every answer has them
        return Response(200, b"OK", "text/plain; charset=utf-8", headers)

    async def version(self, request: Request) -> Answer:
        """Name the versions of the daemon and its parts."""
        del request
        return json_response(self._system.version())

    async def info(self, request: Request) -> Answer:
        """Describe the daemon and its host."""
        return json_response(reshape_info(await self._system.info(), request.version))

    async def events(self, request: Request) -> Answer:
        """Stream what happens; the head is sent when the subscription exists."""
        query = request.query
        subscription = self._events.subscribe(
            since_ns=parse_timestamp_ns(query.text("since")),
            until_ns=parse_timestamp_ns(query.text("until")),
            filters=query.filters(),
        )
        return Stream(_event_lines(subscription), release=subscription.close)

    async def disk_usage(self, request: Request) -> Answer:
        """Measure what is kept; before 1.42 always everything."""
        kinds = request.query.texts("type") if request.version >= (1, 42) else []
        report = await self._disk_use.report(kinds or _KINDS)
        return json_response(reshape_disk_use(report, request.version))

    async def prune_builds(self, request: Request) -> Answer:
        """Empty the build cache, in which there never is anything yet."""
        request.query.filters()  # malformed ones are refused
        return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


async def _event_lines(subscription: Subscription) -> AsyncIterator[bytes]:
    async for event in subscription:
        yield encode_json(reshape_event(event))


def parse_timestamp_ns(text: str) -> int | None:
    """Read Unix seconds with an optional fraction, to the nanosecond; None for nothing.

    Raises:
        InvalidArgumentError: anything else (clients turn dates and durations into this).

    """
    if not text:
        return None
    if not _TIMESTAMP.fullmatch(text):
        raise InvalidArgumentError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    whole, _, fraction = text.partition(".")
    sign = -1 if whole.startswith("-") else 1
    return int(whole) * 10**9 + sign * int(fraction.ljust(9, "0"))
