"""Progress of long work: a stream of JSON lines, whose last one may be a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.api.errors import message_of
from cais.errors import CaisError
from cais.http.errors import ClientGoneError
from cais.http.messages import Stream, encode_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cais.http.messages import Answer


async def progress(messages: AsyncIterator[dict[str, Any]]) -> Answer:
    """Answer with messages. What fails before the first one is an error of the request."""
    first = await anext(messages, None)
    return Stream(lines(messages, first))


async def lines(
    messages: AsyncIterator[dict[str, Any]], first: dict[str, Any] | None = None
) -> AsyncIterator[bytes]:
    """Encode messages; a failure becomes the last one, as clients expect after the head."""
    try:
        if first is not None:
            yield encode_json(first)
        async for message in messages:
            yield encode_json(message)
    except ClientGoneError:
        raise
    except CaisError as exc:
        yield failure(exc)
    finally:
        if aclose := getattr(messages, "aclose", None):
            await aclose()


def failure(error: Exception) -> bytes:
    """Encode a failure as the last message."""
    text = message_of(error)
    return encode_json({"errorDetail": {"message": text}, "error": text})
