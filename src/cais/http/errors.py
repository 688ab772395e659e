"""What can go wrong between a client and a handler."""

from __future__ import annotations

from cais.errors import InvalidArgumentError


class ClientGoneError(Exception):
    """The client closed or broke the connection; nobody is left to be told."""


class BodyTooLargeError(InvalidArgumentError):
    """A body is larger than any real one."""


class CutShortError(Exception):
    """An answer that has begun cannot be ended as its head said."""
