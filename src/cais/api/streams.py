"""Routes that carry a container's output and input: attach and logs.

Spec: docker-engine-api v1.51, "ContainerAttach", "ContainerLogs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cais.api.attachment import hijack_with
from cais.api.router import Route
from cais.api.system import parse_timestamp_ns
from cais.api.versions import stream_content_type
from cais.errors import InvalidArgumentError
from cais.http.messages import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cais.api.request import Request
    from cais.engine.streams import AttachSession
    from cais.http.messages import Answer


class StreamBackend(Protocol):
    """What these routes need of the engine."""

    async def attach(
        self,
        ref: str,
        *,
        stdin: bool = False,
        stdout: bool = False,
        stderr: bool = False,
        stream: bool = False,
        logs: bool = False,
        detach_keys: str | None = None,
    ) -> AttachSession:
        """Attach to a container."""
        ...

    async def logs(
        self,
        ref: str,
        *,
        stdout: bool = False,
        stderr: bool = False,
        follow: bool = False,
        tail: int | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        timestamps: bool = False,
        details: bool = False,
    ) -> tuple[bool, AsyncIterator[bytes]]:
        """Read what a container wrote."""
        ...


class StreamRoutes:
    """Handlers for a container's streams."""

    def __init__(self, streams: StreamBackend) -> None:
        self._streams = streams

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("POST", "/containers/{id}/attach", self.attach),
            Route("GET", "/containers/{id}/logs", self.logs),
        )

    async def attach(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Connect the client to a container's streams."""
        query = request.query
        session = await self._streams.attach(
            id,
            stdin=query.flag("stdin"),
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr"),
            stream=query.flag("stream"),
            logs=query.flag("logs"),
            detach_keys=query.text("detachKeys") or None,
        )
        return hijack_with(session, request)

    async def logs(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Send what a container wrote."""
        query = request.query
        stdout, stderr = query.flag("stdout"), query.flag("stderr")
        if not (stdout or stderr):
            raise InvalidArgumentError("Bad parameters: you must choose at least one stream")
        tty, chunks = await self._streams.logs(
            id,
            stdout=stdout,
            stderr=stderr,
            follow=query.flag("follow"),
            tail=_tail(query.text("tail")),
            since_ns=parse_timestamp_ns(query.text("since")),
            until_ns=parse_timestamp_ns(query.text("until")),
            timestamps=query.flag("timestamps"),
            details=query.flag("details"),
        )
        return Stream(chunks, stream_content_type(request.version, tty=tty))


def _tail(text: str) -> int | None:
    """Read the number of lines; anything but a number is all of them, as dockerd has it."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
