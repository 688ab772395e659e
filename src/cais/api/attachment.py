"""An engine's attach session becomes a hijacked connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.api import hijack
from cais.api.versions import stream_content_type
from cais.http.messages import Hijack
from cais.spec.detach_keys import DetachScanner

if TYPE_CHECKING:
    import socket

    from cais.api.request import Request
    from cais.engine.streams import AttachSession


def hijack_with(session: AttachSession, request: Request) -> Hijack:
    """Answer by connecting the client to ``session``, which is closed at the end."""

    async def serve(client: socket.socket, unread: bytes) -> None:
        await carry(session, client, unread)

    return Hijack(serve, session.close, hijack_content_type(request, tty=session.tty))


def hijack_content_type(request: Request, *, tty: bool) -> str:
    """Name what follows the head; a client that did not ask for an upgrade gets the old name."""
    multiplexed = request.wants_upgrade and not tty
    return stream_content_type(request.version, tty=not multiplexed)


async def carry(session: AttachSession, client: socket.socket, unread: bytes) -> None:
    """Connect a hijacked client to ``session`` until either ends; close the session."""
    try:
        if session.prefix is not None:
            await hijack.send_prefix(client, session.prefix)
        if session.sock is None:
            return
        scanner = DetachScanner(session.detach_keys) if session.detach_keys else None
        detached = await hijack.pump(client, session.sock, unread=unread, scanner=scanner)
        if detached and session.on_detach is not None:
            session.on_detach()
        elif session.on_end is not None:
            await session.on_end()
    finally:
        session.close()
