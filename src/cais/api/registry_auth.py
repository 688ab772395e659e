"""``X-Registry-Auth``: who the user is at the registry, sent with each request.

Base64 (URL-safe) of ``{"username", "password", "identitytoken", "registrytoken", "auth"}``; what
cannot be read counts as nobody, as in Docker.

Spec: docker-engine-api v1.51, "Authentication".
"""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

from cais.errors import InvalidArgumentError
from cais.registry.credentials import ANONYMOUS, Credentials
from cais.spec import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.api.request import Request

_LIMIT_BYTES = 64 * 1024


def credentials_of(request: Request) -> Credentials:
    """Return the user's credentials; anonymous without the header."""
    text = request.headers.get("x-registry-auth", "")
    if not text or len(text) > _LIMIT_BYTES:
        return ANONYMOUS
    with contextlib.suppress(InvalidArgumentError, ValueError):
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
        document = strict_json.loads(raw, _LIMIT_BYTES)
        if isinstance(document, dict):
            return read_credentials(document)
    return ANONYMOUS


def read_credentials(document: Mapping[str, Any]) -> Credentials:
    """Read an ``AuthConfig``. InvalidArgumentError: a member is no text, or ``auth`` no base64."""
    names = ("username", "password", "identitytoken", "registrytoken")
    texts = [document.get(name) or "" for name in names]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidArgumentError("invalid X-Registry-Auth header: a member is not text")
    found = Credentials(*texts)
    if not found.password and isinstance(document.get("auth"), str):
        try:
            pair = base64.b64decode(document["auth"])
        except ValueError:
            raise InvalidArgumentError("invalid auth configuration: auth is not base64") from None
        username, _, password = pair.decode("utf-8", "replace").partition(":")
        return found._replace(username=username, password=password)
    return found
