"""The one table from failures to HTTP statuses, and the body every error has.

Spec: docker-engine-api v1.51, "Errors": ``{"message": "..."}``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cais import errors
from cais.http.errors import BodyTooLargeError
from cais.http.messages import json_response

if TYPE_CHECKING:
    from cais.http.messages import Response

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[errors.CaisError], int], ...] = (
    (errors.NotFoundError, 404),
    (errors.InvalidArgumentError, 400),
    (errors.ConflictError, 409),
    (errors.AlreadyExistsError, 409),
    (errors.UnauthenticatedError, 401),
    (errors.UnavailableError, 503),
    (errors.ForbiddenError, 403),
    (errors.NotModifiedError, 304),
    (errors.UnsupportedError, 501),
)


class PageNotFoundError(errors.NotFoundError):
    """No route has this method and path."""

    def __init__(self) -> None:
        super().__init__("page not found")


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a failure; 500 for what no class of ours describes."""
    if isinstance(error, BodyTooLargeError):
        return 413
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


def error_response(error: Exception, what: str) -> Response:
    """Answer for ``error``; ``what`` names the request in the log.

    A failure that is not a ``CaisError`` is a fault of ours: logged with its traceback, of which
    the client learns the message only.
    """
    status = status_of(error)
    if isinstance(error, errors.CaisError):
        log.debug("%s: %d: %s", what, status, error)
    else:
        log.error("%s: %s", what, type(error).__name__, exc_info=error)
    return json_response({"message": message_of(error)}, status)


def message_of(error: Exception) -> str:
    """Return what a client may be told of ``error``."""
    return str(error) or type(error).__name__
