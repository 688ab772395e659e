"""When a container's out-of-memory kills are told."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, cast

import pytest

from cais.shim.loop import Loop
from cais.shim.oom import OomWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.linux.cgroups import Cgroup


class Group:
    """What OomWatch uses of a control group; its descriptor is a pipe that is never read."""

    oom_poll_mask = select.EPOLLIN

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.is_there = True
        self.kills = 0
        self.cleared = 0

    def oom_event_fd(self) -> int:
        return self.read_fd

    def clear_oom_event(self, fd: int) -> bool:
        assert fd == self.read_fd
        self.cleared += 1
        if self.is_there:
            os.read(fd, 1)
        return self.is_there

    def oom_kills(self) -> int:
        return self.kills


def raise_again(error: BaseException) -> None:
    raise error


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(raise_again)
    yield made
    made.close()


def watch(loop: Loop, group: Group) -> tuple[OomWatch, list[int]]:
    told: list[int] = []
    return OomWatch(loop, cast("Cgroup", group), lambda: told.append(group.kills)), told


def test_a_kill_is_told_once(loop: Loop) -> None:
    group = Group()
    watched, told = watch(loop, group)
    for kills in (1, 1, 2):
        group.kills = kills
        os.write(group.write_fd, b"x")
        loop.run_once(1)  # the event
        loop.run_once(1)  # the count, a moment later
    watched.close()
    assert told == [1, 2]
    assert group.cleared == 3
    os.close(group.write_fd)


def test_a_group_that_is_gone_does_not_keep_the_shim_awake(loop: Loop) -> None:
    group = Group()
    watched, told = watch(loop, group)
    group.is_there = False
    os.write(group.write_fd, b"x")
    for _ in range(3):
        loop.run_once(0)
    assert group.cleared == 1
    group.kills = 1  # as counted before it went
    watched.close()
    assert told == [1]
    os.close(group.write_fd)
