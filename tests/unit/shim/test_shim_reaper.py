"""Which ended children the shim's sweep reaps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cais.shim.daemon import Reaper

if TYPE_CHECKING:
    from collections.abc import Callable


class Later:
    """A loop whose calls are made by the test."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        del delay_s
        self.calls.append(call)

    def pass_time(self) -> None:
        (call,) = self.calls
        self.calls.clear()
        call()


def ended_child() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))


def test_nothing_is_reaped_while_a_runtime_makes_children_nobody_can_name() -> None:
    strangers = children()  # of other tests
    known: set[int] | None = None
    loop: Any = Later()
    looks: list[int] = []
    reaper = Reaper(loop, lambda: looks.append(len(children())), lambda: known)
    pid = ended_child()
    reaper.wake()
    reaper.wake()
    loop.pass_time()
    assert pid in children()
    known = strangers | {pid}
    loop.pass_time()
    assert pid in children()
    assert not loop.calls
    known = strangers
    reaper.wake()
    loop.pass_time()
    assert pid not in children()
    assert len(looks) == 3  # each before the sweep
    assert looks[-1] == len(children()) + 1
