"""The classes of failure every room shares; one table each in ``api`` and ``cli`` gives them codes.

A domain error subclasses exactly one of these and keeps its facts as attributes. Messages are
lower case without a full stop unless Docker clients know another text; they hold no secret.
"""


class CaisError(Exception):
    """Base of every failure this project raises on purpose."""


class InvalidArgumentError(CaisError):
    """The caller asked for something malformed (HTTP 400)."""


class NotFoundError(CaisError):
    """The named object does not exist (HTTP 404)."""


class AlreadyExistsError(CaisError):
    """The name or object is taken (HTTP 409)."""


class ConflictError(CaisError):
    """The object's present state forbids the operation (HTTP 409)."""


class NotModifiedError(CaisError):
    """The object is already in the state asked for (HTTP 304)."""


class UnauthenticatedError(CaisError):
    """No or wrong credentials (HTTP 401)."""


class ForbiddenError(CaisError):
    """Known caller, operation not permitted (HTTP 403)."""


class ExhaustedError(CaisError):
    """A limit of the host or the engine is reached (HTTP 500, as Docker answers)."""


class UnavailableError(CaisError):
    """A part the operation needs does not answer now (HTTP 503)."""


class UnsupportedError(CaisError):
    """Not supported by this version or this host (HTTP 501)."""


class DeadlineError(CaisError):
    """The operation did not end in time (HTTP 500)."""


class DataLossError(CaisError):
    """Stored bytes are not what their digest or schema says (HTTP 500)."""


class InternalError(CaisError):
    """A fault of ours or of the kernel that no caller can mend (HTTP 500)."""
