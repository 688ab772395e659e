"""One prune at a time: what another one is about to remove is nobody's to count or remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.errors import ConflictError

if TYPE_CHECKING:
    from types import TracebackType


class PruneRunningError(ConflictError):
    """Another prune of the same kind is under way."""

    def __init__(self) -> None:
        super().__init__("a prune operation is already running")


class PruneTurn:
    """The right to prune, for the length of a ``with`` block. Used in the event loop alone.

    As with Docker nobody waits for it: who comes meanwhile is refused, with ``PruneRunningError``.
    """

    def __init__(self) -> None:
        self._is_taken = False

    def __enter__(self) -> None:
        if self._is_taken:
            raise PruneRunningError
        self._is_taken = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_taken = False
