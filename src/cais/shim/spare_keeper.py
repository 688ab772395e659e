"""Keep a process ready for the next start or exec (``cais.runtime.nursery``).

It is ordered a moment after the last one was used, when the start that used it is over.
"""

from __future__ import annotations

from cais.errors import CaisError
from cais.linux import credentials
from cais.runtime import nursery, spares
from cais.shim.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.nursery import Coming, Nursery
    from cais.shim.loop import Loop

_WAIT_S = 0.01
_NOBODY = "3"  # Yama: not even those with CAP_SYS_PTRACE


class SpareKeeper:
    """Owner of the nursery and of what comes from it. Without one, starts clone for themselves."""

    def __init__(self, loop: Loop, report: Callable[[BaseException], None]) -> None:
        """``report`` is told why a spare was not made."""
        self._loop = loop
        self._report = report
        self._nursery: Nursery | None = None
        self._coming: Coming | None = None
        self._is_scheduled = False

    def open(self) -> None:
        """Clone the nursery, and have the first spare made; nothing where it could not be used."""
        if not _may_trace():
            return
        try:
            self._nursery = nursery.Nursery()
        except OSError as exc:
            self._report(exc)
        spares.set_maker(self._nursery)
        self.wake()

    def wake(self) -> None:
        """See to it that there is one, in a moment."""
        if self._nursery is not None and not self._is_scheduled and self._coming is None:
            self._is_scheduled = True
            self._loop.call_later(_WAIT_S, self._order)

    def close(self) -> None:
        """End and reap the nursery, and every spare that is not used."""
        if self._coming is not None:
            self._loop.unwatch(self._coming.fileno())
            self._coming.wait()
            self._admit(self._coming)
        while (spare := spares.take()) is not None:
            spare.close()
        self._close_nursery()

    def _order(self) -> None:
        self._is_scheduled = False
        if self._nursery is None or spares.count():
            return
        try:
            coming = self._coming = self._nursery.order()
        except OSError as exc:
            self._give_up(exc)
        else:
            self._loop.watch(coming.fileno(), READ, lambda _events: self._admit(coming))

    def _admit(self, coming: Coming) -> None:
        self._loop.unwatch(coming.fileno())
        self._coming = None
        try:
            spares.add(coming.admit())
        except (OSError, CaisError) as exc:
            self._give_up(exc)

    def _give_up(self, reason: BaseException) -> None:
        """Report why there is no spare; the next start asks for one again, if that can be."""
        self._report(reason)
        if self._nursery is not None and not self._nursery.is_alive():
            self._close_nursery()

    def _close_nursery(self) -> None:
        spares.set_maker(None)
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None


def _may_trace() -> bool:
    """Say whether a child that is not dumpable may be traced, as a spare in use is."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            is_forbidden = file.read().strip() == _NOBODY
    except OSError:  # a kernel without Yama
        is_forbidden = False
    return not is_forbidden and bool(credentials.permitted() & credentials.BITS["CAP_SYS_PTRACE"])
