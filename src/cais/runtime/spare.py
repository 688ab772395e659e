"""What a process of the nursery does until it becomes a container's, or an exec's.

It waits for one packet. Nothing of any container has been in its memory, it has no descriptor but
the line it waits at, the null devices and the log of its parent, no import system and no
collector, and is not dumpable; it ends with the line and with its parent. The nursery is such a
process too, whose packets make it clone another, a sibling:

    parent ──(breed, page list) + its line──────────▶ nursery ── clone ──▶ spare
           ◀──{"waiting": true}────────────────────────────────────────── spare, its memory copied
    parent ──(breed, nothing) + its line, a group───▶ nursery ── clone ──▶ spare
           ◀──{"waiting": true}───────────────────── nursery
           ──(start, plan) + the launch's line, descriptors────▶ spare, seized: its successor
           ──(exec, plan) + the launch's line, descriptors─────▶ spare: stage one of the exec
           ──(forerun, plan) + the launch's line, descriptors──▶ spare: the forerunner

In place of ``waiting`` the nursery says ``{"errno": n}`` where it could not clone.
The nursery's own memory never changes, so what every spare will write to is the same pages.
"""

from __future__ import annotations

import os

from cais.linux import pages, process
from cais.linux.signals import SIGKILL
from cais.linux.succession import BirthPlace, succeed
from cais.runtime import child, isolation, joiner, packing, settle
from cais.runtime.channel import adopt
from cais.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from cais.linux.pages import Ranges
    from cais.runtime.channel import Channel
    from cais.runtime.packing import Packed
    from cais.runtime.plan import ContainerPlan
    from cais.runtime.process_plan import ProcessPlan


WAITING = {"waiting": True}
NAME = b"cais-spare"  # what ps shows


def serve(line: Channel, parent_pid: int, ignored: Sequence[int]) -> NoReturn:
    """Be the nursery, then in its clones the spares; returns in none of them."""
    try:
        child.isolate([line.fileno()])
        settle.reset_signals(ignored)
        process.set_name(NAME)
        _end_with(parent_pid)
        while True:
            data, fds = line.take()
            if not data:
                os._exit(0)
            words = packing.decode(data)
            del data  # as much again, in the container's group where it was born there
            _obey(line, parent_pid, words, fds)
    except BaseException as error:  # noqa: BLE001 - must not return into the parent's frames
        child.report(line, error)
    os._exit(1)


def _obey(line: Channel, parent_pid: int, words: list[Any], fds: list[int]) -> None:
    verb, *rest = words
    if verb == "breed":
        _breed(line, parent_pid, fds, *rest)
        return
    launch_line = adopt(fds.pop(0))
    try:
        if verb == "start":
            _start(launch_line, fds, *rest)
        elif verb == "forerun":
            _forerun(launch_line, fds, *rest)
        else:
            _execute(launch_line, fds, *rest)
    except BaseException as error:  # noqa: BLE001 - as above
        child.report(launch_line, error)
    os._exit(1)


def _breed(
    line: Channel,
    parent_pid: int,
    fds: list[int],
    shape: tuple[int, int],
    own_pages: Ranges | None,
) -> None:
    """Clone a sibling that waits at the line it is given, under the number of ``line``.

    Without ``own_pages`` the word that it waits is the nursery's. In a group of its own it may
    not run for as long as its container likes.
    """
    address, flags = shape
    line_fd, *group = fds
    birth = BirthPlace(address)
    word: dict[str, Any] | None = WAITING if own_pages is None else None
    try:
        is_nursery = birth.clone_sibling(flags, cgroup_fd=group[0] if group else -1) != 0
    except OSError as error:
        is_nursery, word = True, {"errno": error.errno or 0}
    if is_nursery:
        if word is not None:
            os.write(line_fd, json_text.encode(word).encode())
        for fd in fds:
            os.close(fd)
        return
    os.dup2(line_fd, line.fileno(), inheritable=False)
    process.close_all_but([0, 1, 2, line.fileno()])
    _end_with(parent_pid)
    if own_pages is not None:
        pages.make_own(own_pages)
        line.say(WAITING)


def _end_with(parent_pid: int) -> None:
    process.set_parent_death_signal(SIGKILL)
    if os.getppid() != parent_pid:  # it ended before that
        os._exit(0)


def _start(
    line: Channel,
    fds: list[int],
    shape: tuple[int, bool, bool],
    facts: tuple[Any, ...],
    plan: Packed,
) -> NoReturn:
    address, has_cgroup, is_studied = shape
    cgroup_fd = fds.pop() if has_cgroup else -1
    given = packing.unpack_given(facts, fds)
    container: ContainerPlan = packing.unpack(plan, given.trees)
    given.is_studied = is_studied
    birth = BirthPlace(address)
    succeed(isolation.flags_at_birth(container), birth, cgroup_fd=cgroup_fd)
    line.say({"process": birth.pid})
    child.run(container, line, given, ())


def _forerun(
    line: Channel, fds: list[int], address: int, facts: tuple[Any, ...], plan: Packed
) -> NoReturn:
    given = packing.unpack_given(facts, fds)
    container: ContainerPlan = packing.unpack(plan, given.trees)
    given.birth = BirthPlace(address)
    child.run(container, line, given, ())


def _execute(
    line: Channel, fds: list[int], shape: tuple[int, int], facts: tuple[Any, ...], plan: Packed
) -> NoReturn:
    address, flags = shape
    wanted: ProcessPlan = packing.unpack(plan)
    init_pidfd = fds.pop()
    given = packing.unpack_given(facts, fds)
    given.birth = BirthPlace(address)
    joiner.run(wanted, line, given, (init_pidfd, flags), ())
