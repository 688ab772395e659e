"""Routes of the Exec tag.

Spec: docker-engine-api v1.51, "Exec".
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Protocol

from cais.api.attachment import carry, hijack_content_type
from cais.api.bodies import read_json_bytes, read_object
from cais.api.hijack import until_read
from cais.api.query import window_size
from cais.api.router import Route
from cais.errors import CaisError, InvalidArgumentError
from cais.http.messages import Hijack, Response, json_response
from cais.spec.bodies import parse_exec_body

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from cais.api.request import Request
    from cais.engine.streams import AttachSession
    from cais.http.messages import Answer
    from cais.spec.container import ExecBody

_STDOUT = 1


class ExecBackend(Protocol):
    """What these routes need of the engine."""

    async def create(self, ref: str, body: ExecBody) -> str:
        """Prepare a process; return its id."""
        ...

    async def start(
        self,
        exec_id: str,
        *,
        detach: bool = False,
        tty: bool | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> AttachSession | None:
        """Run it; None if ``detach``."""
        ...

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the terminal's window size."""
        ...

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """Describe it."""
        ...


class ExecRoutes:
    """Handlers of the Exec tag."""

    def __init__(self, execs: ExecBackend) -> None:
        self._execs = execs

    def routes(self) -> Iterable[Route]:
        """Return the routes of this module."""
        return (
            Route("POST", "/containers/{id}/exec", self.create),
            Route("POST", "/exec/{id}/start", self.start),
            Route("POST", "/exec/{id}/resize", self.resize),
            Route("GET", "/exec/{id}/json", self.inspect),
        )

    async def create(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Prepare a process in a container."""
        body = parse_exec_body(await read_json_bytes(request) or b"{}")
        return json_response({"Id": await self._execs.create(id, body)}, 201)

    async def start(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Run a prepared process, attached or not.

        An attached client gets the head before the process is started, and failures to start it in
        the stream, as dockerd has both. The exit code of what could not be executed is in the
        exec's description.
        """
        body = await read_object(request)
        detach, tty = bool(body.get("Detach")), bool(body.get("Tty"))
        size = _console_size(body.get("ConsoleSize")) if request.version >= (1, 42) else None
        self._execs.inspect(id)
        if detach:
            await self._execs.start(id, detach=True, tty=tty, console_size=size)
            return Response(200)

        async def serve(client: socket.socket, unread: bytes) -> None:
            try:
                session = await self._execs.start(id, tty=tty, console_size=size)
            except CaisError as exc:
                await _tell(client, f"{exc}\r\n", tty=tty)
            else:
                if session is not None:
                    await carry(session, client, unread)

        return Hijack(serve, _nothing, hijack_content_type(request, tty=tty))

    async def resize(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Set the terminal's window size."""
        height, width = window_size(request.query)
        await self._execs.resize(id, height, width)
        return Response(200)

    async def inspect(self, request: Request, id: str) -> Answer:  # noqa: A002 - the path's word
        """Describe an exec."""
        del request
        return json_response(self._execs.inspect(id))


def _console_size(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(type(item) is int and 0 <= item < 2**32 for item in value)
    ):
        return (value[0], value[1])
    raise InvalidArgumentError("invalid JSON: ConsoleSize is not a pair of numbers")


async def _tell(client: socket.socket, text: str, *, tty: bool) -> None:
    data = text.encode()
    frame = data if tty else struct.pack(">BxxxL", _STDOUT, len(data)) + data
    await until_read(client)
    await asyncio.get_running_loop().sock_sendall(client, frame)


def _nothing() -> None:
    """Abandon a hijack that has not begun anything."""
