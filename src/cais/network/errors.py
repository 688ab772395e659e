"""Failures of the network room, with Docker's texts where clients know them."""

from cais.errors import ExhaustedError, NotFoundError, UnavailableError


class NetworkNotFoundError(NotFoundError):
    """No network has this name or id."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"network {reference} not found")
        self.reference = reference


class NetworkFullError(ExhaustedError):
    """No address is free, or the bridge has all the ports the kernel gives it."""


class NetworkUnavailableError(UnavailableError):
    """The host's network could not be configured; the message says which step failed."""


class NoReadyNamespaceError(UnavailableError):
    """The pool is empty: have the shim make a namespace, ``offer`` it, and ask again."""
