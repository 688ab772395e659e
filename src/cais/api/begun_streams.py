"""Answers that stream, with the head sent when the first bytes exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.http.messages import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def begin_stream(
    chunks: AsyncIterator[bytes], content_type: str, headers: dict[str, str] | None = None
) -> Stream:
    """Wait for the first bytes: what can be refused is refused before the head says 200."""
    first = await anext(chunks, b"")
    return Stream(_resume(first, chunks), content_type, headers=headers or {})


async def _resume(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        if aclose := getattr(rest, "aclose", None):
            await aclose()
