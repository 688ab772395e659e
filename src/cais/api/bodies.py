"""JSON request bodies: read whole, within a limit, with dockerd's texts for what is wrong.

The whole body is read into one buffer before anything looks at it, so nothing can see another
body than the handler does (SECURITY.md G1).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError
from cais.http.bodies import read_whole
from cais.spec import strict_json

if TYPE_CHECKING:
    from cais.api.request import Request

MAX_JSON_BYTES = 16 * 1024 * 1024
_MEDIA_TYPE = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(;.*)?")


async def read_json_bytes(request: Request) -> bytes:
    """Return the body of a request whose body must be JSON; b"" if it has none.

    Raises:
        InvalidArgumentError: another Content-Type.
        BodyTooLargeError: longer than ``MAX_JSON_BYTES``.

    """
    _check_content_type(request)
    return await read_body(request)


async def read_body(request: Request) -> bytes:
    """Return the whole body. BodyTooLargeError: longer than ``MAX_JSON_BYTES``."""
    return await read_whole(request.body, MAX_JSON_BYTES)


async def read_json(request: Request) -> Any:  # noqa: ANN401 - any JSON value
    """Return the decoded body; None if there is none.

    Raises:
        InvalidArgumentError: another Content-Type, or not JSON of one meaning.

    """
    body = await read_json_bytes(request)
    if not body:
        return None
    return strict_json.loads(body, MAX_JSON_BYTES)


async def read_object(request: Request) -> dict[str, Any]:
    """Return the decoded body, which must be an object; {} if there is none."""
    document = await read_json(request)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidArgumentError("invalid JSON: the body is not an object")
    return document


def _check_content_type(request: Request) -> None:
    header = request.headers.get("content-type", "")
    if not header and not request.body.is_expected:
        return
    if not header:
        raise InvalidArgumentError("malformed Content-Type header (): mime: no media type")
    media_type = _MEDIA_TYPE.fullmatch(header)
    if media_type is None:
        raise InvalidArgumentError(
            f"malformed Content-Type header ({header}): mime: expected slash after first token"
        )
    if media_type[1].lower() != "application/json":
        raise InvalidArgumentError(
            f"unsupported Content-Type header ({header}): must be 'application/json'"
        )
