"""What a registry, or the way to it, can refuse; the texts are those Docker's users know.

Spec: OCI distribution-spec 1.1, "Error Codes".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from cais.errors import (
    CaisError,
    ExhaustedError,
    ForbiddenError,
    InternalError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from cais.spec import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.registry.origin import Url

ERROR_LIMIT_BYTES = 1024 * 1024
TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""Statuses of a registry that is busy or ailing: the same request may succeed later."""

_SHOWN = 500


class RegistryUnreachableError(UnavailableError):
    """No usable answer: the connection failed, broke, or took too long."""

    def __init__(self, method: str, url: Url, why: str) -> None:
        super().__init__(f'{method.title()} "{url}": {why}')


class ProtocolError(InternalError):
    """A registry answered with something the specification does not allow."""


class RegistryError(CaisError):
    """An answer that is an error; ``codes`` are the specification's, such as MANIFEST_UNKNOWN."""

    def __init__(self, status: int, codes: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.status = status
        self.codes = tuple(codes)
        self.retry_after_s = 0.0
        """How long the registry wants to be left alone."""


class UnknownToRegistryError(RegistryError, NotFoundError):
    """The registry has no such repository, manifest or blob."""


class DeniedByRegistryError(RegistryError, ForbiddenError):
    """Known or anonymous, this user may not do that."""


class LoginNeededError(RegistryError, UnauthenticatedError):
    """The registry does not accept the credentials, or wants some."""


class RegistryBusyError(RegistryError, ExhaustedError):
    """The registry limits how often it may be asked (429)."""


class RegistryFaultError(RegistryError, InternalError):
    """Any other refusal."""


class PasswordNeededError(RegistryFaultError):
    """The registry wants a password, and there is none.

    Text and class are Docker's: an error that says "unauthorized" would have its CLI ask for one.
    """

    def __init__(self) -> None:
        super().__init__(401, (), "no basic auth credentials")


_KINDS: dict[int, type[RegistryError]] = {
    401: LoginNeededError,
    403: DeniedByRegistryError,
    404: UnknownToRegistryError,
    429: RegistryBusyError,
}


def error_of(status: int, body: bytes, what: str) -> RegistryError:
    """Make the error of an answer.

    Args:
        status: 400 or above.
        body: at most ``ERROR_LIMIT_BYTES`` of it; the specification's JSON, or anything.
        what: names the request when the body says nothing.

    """
    entries = _entries(body)
    codes = [str(entry.get("code", ""))[:64] for entry in entries]
    parts = [_words(entry) for entry in entries]
    message = "; ".join(part for part in parts if part)
    if not message:
        message = f"{what}: unexpected status from the registry: {status}"
    return _KINDS.get(status, RegistryFaultError)(status, codes, message[:_SHOWN])


def _entries(body: bytes) -> list[dict[str, Any]]:
    with contextlib.suppress(CaisError):
        document = strict_json.loads(body, ERROR_LIMIT_BYTES)
        found = document.get("errors") if isinstance(document, dict) else None
        if isinstance(found, list):
            return [entry for entry in found[:10] if isinstance(entry, dict)]
        if isinstance(document, dict) and isinstance(document.get("details"), str):
            return [{"message": document["details"]}]  # token servers
    return []


def _words(entry: dict[str, Any]) -> str:
    """Return Docker's form: ``manifest unknown: manifest unknown``."""
    code = str(entry.get("code", "")).replace("_", " ").lower()
    message = str(entry.get("message", ""))
    return ": ".join(part for part in (code, message) if part)
