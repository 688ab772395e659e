"""Routes that move a container between its states, and those that wait for it.

Spec: docker-engine-api v1.51, "Container".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cais.api.bodies import read_body
from cais.api.query import window_size
from cais.api.router import Route
from cais.errors import InvalidArgumentError
from cais.http.messages import Response, Stream, encode_json, json_response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable

    from cais.api.request import Request
    from cais.engine.lifecycle import WaitCondition, WaitResult
    from cais.http.messages import Answer

_CONDITIONS: dict[str, WaitCondition] = {
    "": "not-running",
    "not-running": "not-running",
    "next-exit": "next-exit",
    "removed": "removed",
}


class LifecycleBackend(Protocol):
    """What these routes need of the engine."""

    async def start(self, ref: str, checkpoint: str = "") -> None:
        """Start a container, from a checkpoint if one is named."""
        ...

    async def stop(
        self,
        ref: str,
        *,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - the container's, not the call's
    ) -> None:
        """Stop a container."""
        ...

    async def restart(
        self,
        ref: str,
        *,
        signal: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - the container's, not the call's
    ) -> None:
        """Stop if running, then start."""
        ...

    async def kill(self, ref: str, signal: str | None = None) -> None:
        """Send a signal."""
        ...

    async def pause(self, ref: str) -> None:
        """Freeze."""
        ...

    async def unpause(self, ref: str) -> None:
        """Thaw."""
        ...

    def wait(self, ref: str, condition: WaitCondition) -> asyncio.Future[WaitResult]:
        """Register for the end of a container."""
        ...

    async def top(self, ref: str, ps_args: str = "") -> dict[str, Any]:
        """List the processes."""
        ...

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the terminal's window size."""
        ...


class LifecycleRoutes:
    """Handlers for what moves a container between states."""

    def __init__(self, lifecycle: LifecycleBackend, *, experimental: bool = False) -> None:
        self._lifecycle = lifecycle
        self._experimental = experimental

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("POST", "/containers/{id}/start", self.start),
            Route("POST", "/containers/{id}/stop", self.stop),
            Route("POST", "/containers/{id}/restart", self.restart),
            Route("POST", "/containers/{id}/kill", self.kill),
            Route("POST", "/containers/{id}/pause", self.pause),
            Route("POST", "/containers/{id}/unpause", self.unpause),
            Route("POST", "/containers/{id}/wait", self.wait),
            Route("POST", "/containers/{id}/resize", self.resize),
            Route("GET", "/containers/{id}/top", self.top),
        )

    async def start(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Start a container; its configuration was given at its creation."""
        body = await read_body(request)
        if body.strip() not in {b"", b"{}", b"null"}:
            raise InvalidArgumentError(
                "starting container with non-empty request body was deprecated since API v1.22"
                " and removed in v1.24"
            )
        checkpoint = request.query.text("checkpoint")
        if checkpoint and not self._experimental:
            raise InvalidArgumentError("checkpoint is only supported in experimental mode")
        if request.query.text("checkpoint-dir"):
            raise InvalidArgumentError("custom checkpointdir is not supported")
        await (self._lifecycle.start(id, checkpoint) if checkpoint else self._lifecycle.start(id))
        return Response(204)

    async def stop(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Stop a container."""
        timeout_s = request.query.integer("t")
        await self._lifecycle.stop(id, signal=_stop_signal(request), timeout=timeout_s)
        return Response(204)

    async def restart(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Stop and start a container."""
        timeout_s = request.query.integer("t")
        await self._lifecycle.restart(id, signal=_stop_signal(request), timeout=timeout_s)
        return Response(204)

    async def kill(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Send a signal."""
        await self._lifecycle.kill(id, request.query.text("signal") or None)
        return Response(204)

    async def pause(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Freeze a container."""
        del request
        await self._lifecycle.pause(id)
        return Response(204)

    async def unpause(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Thaw a container."""
        del request
        await self._lifecycle.unpause(id)
        return Response(204)

    async def wait(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Wait for a container's end.

        From 1.30 on the head is sent when the waiting has begun: the CLI starts the container
        only then.
        """
        condition = request.query.text("condition") if request.version >= (1, 30) else ""
        if condition not in _CONDITIONS:
            raise InvalidArgumentError(f'invalid condition: "{condition}"')
        result = self._lifecycle.wait(id, _CONDITIONS[condition])
        if request.version < (1, 30):
            return json_response(_wait_document(await result))
        return Stream(_wait_chunks(result), release=result.cancel)

    async def resize(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Set the terminal's window size."""
        height, width = window_size(request.query)
        await self._lifecycle.resize(id, height, width)
        return Response(200)

    async def top(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """List the processes of a container."""
        return json_response(await self._lifecycle.top(id, request.query.text("ps_args")))


def _stop_signal(request: Request) -> str | None:
    if request.version < (1, 42):
        return None
    return request.query.text("signal") or None


async def _wait_chunks(result: asyncio.Future[WaitResult]) -> AsyncIterator[bytes]:
    yield encode_json(_wait_document(await result))


def _wait_document(result: WaitResult) -> dict[str, Any]:
    document: dict[str, Any] = {"StatusCode": result.status_code}
    if result.error is not None:
        document["Error"] = {"Message": result.error}
    return document
