"""The processes cloned ahead that wait for a container to become; ``nursery`` makes them.

None unless somebody keeps them: a command that starts one container has no use for any.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.nursery import Spare

_waiting: list[Spare] = []


def add(spare: Spare) -> None:
    """Have the next start take ``spare``, which is owned from now on."""
    _waiting.append(spare)


def take() -> Spare | None:
    """Return one that is alive, for the caller to own; None: there is none."""
    while _waiting:
        spare = _waiting.pop()
        if spare.is_alive():
            return spare
        spare.close()
    return None


def count() -> int:
    """Return how many there are."""
    return len(_waiting)
