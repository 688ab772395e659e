"""An engine's attach session becomes a hijacked connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.api import hijack
from cais.api.http import Hijack
from cais.api.versions import stream_content_type
from cais.engine.detach import DetachScanner

if TYPE_CHECKING:
    import socket

    from cais.api.http import Request
    from cais.engine.streams import AttachSession


def hijack_with(session: AttachSession, request: Request) -> Hijack:
    """Answer by connecting the client to ``session``, which is closed at the end."""
    multiplexed = request.wants_upgrade and not session.tty
    content_type = stream_content_type(request.version, tty=not multiplexed)

    async def serve(client: socket.socket, unread: bytes) -> None:
        try:
            await _serve(session, client, unread)
        finally:
            session.close()

    return Hijack(serve, session.close, content_type)


async def _serve(session: AttachSession, client: socket.socket, unread: bytes) -> None:
    if session.prefix is not None:
        await hijack.send_prefix(client, session.prefix)
    if session.sock is None:
        return
    scanner = DetachScanner(session.detach_keys) if session.detach_keys else None
    detached = await hijack.pump(client, session.sock, unread=unread, scanner=scanner)
    if detached and session.on_detach is not None:
        session.on_detach()
