"""What is tried again when a registry or the way to it fails, and how that is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cais.registry.errors import TRANSIENT, RegistryError, RegistryUnreachableError
from cais.registry.transport import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.registry.cancel import Cancel

T = TypeVar("T")

PAUSE_S = 5
"""Before the second attempt, twice that before the third, and so on, as Docker waits."""

_LONGEST_PAUSE_S = 60


def retried(attempt: Callable[[], T], cancel: Cancel, tell: Callable[[str], None]) -> T:
    """Return what ``attempt`` returns; call it again while failing may be of the moment.

    Args:
        attempt: one whole try, which leaves nothing that the next one trips over.
        cancel: ends the waits.
        tell: given Docker's "Retrying in 5 seconds", once a second.

    Raises:
        RegistryError, RegistryUnreachableError: of the last attempt, or one that will not do.

    """
    for count in range(1, MAX_ATTEMPTS):
        try:
            return attempt()
        except RegistryUnreachableError:
            pause = 0.0
        except RegistryError as error:
            if error.status not in TRANSIENT:
                raise
            pause = error.retry_after_s
        cancel.check()
        count_down(min(max(pause, count * PAUSE_S), _LONGEST_PAUSE_S), cancel, tell)
    return attempt()


def count_down(seconds: float, cancel: Cancel, tell: Callable[[str], None]) -> None:
    """Wait, saying so once a second. DeadlineError: cancelled."""
    for left in range(round(seconds), 0, -1):
        tell(f"Retrying in {left} second{'s' if left > 1 else ''}")
        cancel.sleep(1)
