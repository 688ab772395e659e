"""System-call filters: compiled once, kept, loaded in the child."""

from __future__ import annotations

from cais.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.spec.runtime import Seccomp


class Filter:
    """A compiled filter."""

    def install(self) -> None:
        """Put the calling process under the filter."""
        raise UnsupportedError("seccomp is not there yet")


def load(document: Seccomp) -> Filter:
    """Return the compiled filter of a document."""
    raise UnsupportedError(f"seccomp is not there yet: {document['defaultAction']}")
