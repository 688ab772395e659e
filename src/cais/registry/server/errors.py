"""Refusals: the specification's codes, their statuses, and the body every error has.

Spec: OCI distribution-spec 1.1, "Error Codes": ``{"errors": [{"code", "message", "detail"}]}``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cais import errors
from cais.http.errors import BodyTooLargeError
from cais.http.messages import Response, json_response
from cais.registry.errors import RegistryError
from cais.spec.digest import DigestMismatchError, InvalidDigestError

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 409,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNAVAILABLE": 503,
    "UNSUPPORTED": 405,
}
_KINDS: tuple[tuple[type[Exception], str, int], ...] = (
    (BodyTooLargeError, "SIZE_INVALID", 413),
    (DigestMismatchError, "DIGEST_INVALID", 400),
    (InvalidDigestError, "DIGEST_INVALID", 400),
    (errors.InvalidArgumentError, "UNSUPPORTED", 400),
    (errors.UnavailableError, "UNAVAILABLE", 503),
    (errors.ExhaustedError, "UNAVAILABLE", 507),
)


class RefusalError(errors.CaisError):
    """The registry does not do what it was asked.

    Args:
        code: one of the specification's.
        message: says why, to a person.
        detail: any JSON value that tells a program more.
        status: instead of the code's own.
        headers: sent along.

    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        detail: Any = None,  # noqa: ANN401 - any JSON value
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail
        self.status = status or _STATUS[code]
        self.headers = dict(headers or {})


def blob_unknown(digest: str) -> RefusalError:
    """Return the error of a blob that is not in the repository."""
    return RefusalError("BLOB_UNKNOWN", "blob unknown to registry", detail={"digest": digest})


def manifest_unknown(reference: str) -> RefusalError:
    """Return the error of a manifest or tag that is not in the repository."""
    return RefusalError("MANIFEST_UNKNOWN", "manifest unknown", detail={"reference": reference})


def name_unknown(repository: str) -> RefusalError:
    """Return the error of a repository that does not exist."""
    return RefusalError(
        "NAME_UNKNOWN", "repository name not known to registry", detail={"name": repository}
    )


def error_response(error: Exception, what: str) -> Response:
    """Answer for ``error``; ``what`` names the request in the log.

    What is a fault of ours is logged with its traceback, of which the client learns nothing.
    """
    if isinstance(error, RefusalError):
        return _response(error.status, error.code, str(error), error.detail, error.headers)
    if isinstance(error, RegistryError):  # of the upstream
        code = error.codes[0] if error.codes else "UNKNOWN"
        status = error.status if error.status in {403, 404, 429} else 502
        return _response(status, code, str(error))
    for kind, code, status in _KINDS:
        if isinstance(error, kind):
            log.warning("%s: %d: %s", what, status, error)
            return _response(status, code, str(error))
    log.error("%s: %s", what, type(error).__name__, exc_info=error)
    return _response(500, "UNKNOWN", "the registry failed")


def _response(
    status: int,
    code: str,
    message: str,
    detail: Any = None,  # noqa: ANN401 - any JSON value
    headers: Mapping[str, str] | None = None,
) -> Response:
    entry = {"code": code, "message": message}
    if detail is not None:
        entry["detail"] = detail
    answer = json_response({"errors": [entry]}, status)
    answer.headers = headers or {}
    return answer
