"""Every route of the Engine API that no module here has: 501, by name, never a blank 404.

``data/routes.json`` lists method, path and summary of all operations of docker-engine-api v1.51.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from cais.api.router import Route
from cais.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.api.request import Request
    from cais.api.router import Handler
    from cais.http.messages import Answer

_MAY_HOLD_SLASHES = ("/images/{name}", "/distribution/{name}", "/plugins/{name}")


def routes() -> Iterator[Route]:
    """Yield a route for every operation of the specification; to be tried after the real ones."""
    text = files("cais.api").joinpath("data", "routes.json").read_text("utf-8")
    for method, path, summary in json.loads(text):
        if path.startswith(_MAY_HOLD_SLASHES):
            path = path.replace("{name}", "{name*}")  # noqa: PLW2901 - as the router spells it
        yield Route(method, path, _refusal(summary))


def _refusal(summary: str) -> Handler:
    async def refuse(request: Request, **_: str) -> Answer:
        raise UnsupportedError(
            f"{request.method} {request.path}: {summary} is not supported by this version of cais"
        )

    return refuse
