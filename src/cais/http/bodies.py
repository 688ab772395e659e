"""Request bodies that are read whole, within a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.http.errors import BodyTooLargeError

if TYPE_CHECKING:
    from cais.http.messages import Body


async def read_whole(body: Body, limit_bytes: int) -> bytes:
    """Return the whole body. BodyTooLargeError: longer than ``limit_bytes``."""
    content = bytearray()
    async for piece in body:
        content += piece
        if len(content) > limit_bytes:
            raise BodyTooLargeError(f"request body larger than {limit_bytes} bytes")
    return bytes(content)
