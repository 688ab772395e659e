"""The processes that hold nothing of any container until they become one's; ``nursery`` makes them.

One may wait, cloned ahead. For what it does not fit, or while none waits, another is made at once.
None is where nobody keeps them: a command that starts one container has no use for any.
"""

from __future__ import annotations

from cais.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.nursery import Nursery, Spare

_waiting: list[Spare] = []
_makers: list[Nursery] = []


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


def make(flags: int = 0, cgroup_fd: int = -1) -> Spare | None:
    """Return a new one, for the caller to own; None: there is nobody to make it.

    Args:
        flags: CLONE_NEW* it is born with; none for a ``start``, which makes its own.
        cgroup_fd: a cgroup v2 directory it is born in. Borrowed.

    Raises:
        KernelError: as ``process.clone``.

    Blocks: until it exists; it need not have run, which its group may not let it for long.

    """
    if not _makers:
        return None
    try:
        return _makers[0].make(flags, cgroup_fd)
    except UnavailableError:
        return None


def set_maker(maker: Nursery | None) -> None:
    """Have ``maker``, which stays the caller's, asked by ``make``; None: nobody."""
    _makers[:] = [maker] if maker is not None else []


def count() -> int:
    """Return how many there are."""
    return len(_waiting)
