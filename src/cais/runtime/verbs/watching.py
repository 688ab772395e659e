"""``events``: a container's counters again and again, and when it ran out of memory."""

from __future__ import annotations

import os
import select
import sys
import time

from cais.errors import ConflictError, InvalidArgumentError
from cais.runtime import arguments, state
from cais.runtime.arguments import DURATION, SWITCH
from cais.runtime.verbs.verb import Verb
from cais.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cais.linux.cgroups import Cgroup
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context

_FLAGS: tuple[Flag, ...] = (
    ("interval", DURATION, "pause between two readings (default: 5s)"),
    ("stats", SWITCH, "print the counters once"),
)

_COUNT_DELAY_S = 0.05
"""cgroup v1 tells of a kill before it counts it: how soon the counter is looked at again."""


def _events(given: Arguments, context: Context) -> int:
    interval_s = arguments.seconds(given.text("interval", "5s"))
    if interval_s <= 0:
        raise InvalidArgumentError("duration interval must be greater than 0")
    record = state.load(context.root, given.rest[0])
    if record.status() == "stopped":
        raise ConflictError(f"container with id {record.id} is not running")
    if given.has("stats"):
        _print_stats(record)
    else:
        _watch(record, interval_s)
    return 0


def _watch(record: Record, interval_s: float) -> None:
    """Print until the container ends, which is no failure."""
    pidfd = os.pidfd_open(record.pid)
    group = record.group()
    oom_fd = group.oom_event_fd()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if oom_fd is not None:
        poll.register(oom_fd, group.oom_poll_mask)
    kills, due = group.oom_kills(), time.monotonic() + interval_s
    was_told = False
    while True:
        wait_s = due - time.monotonic()
        wait_s = min(wait_s, _COUNT_DELAY_S) if was_told else wait_s
        ready = dict(poll.poll(max(0.0, wait_s) * 1000))
        was_told = oom_fd is not None and oom_fd in ready
        if oom_fd is not None and was_told and not group.clear_oom_event(oom_fd):
            poll.unregister(oom_fd)
        kills = _print_kills(record, group, kills)
        if pidfd in ready:
            return
        if time.monotonic() >= due:
            _print_stats(record)
            due = time.monotonic() + interval_s


def _print_kills(record: Record, group: Cgroup, before: int) -> int:
    """Print an event for what was killed since; return how many were, in all."""
    now = group.oom_kills()
    if now > before:
        _print({"type": "oom", "id": record.id})
    return max(now, before)


def _print_stats(record: Record) -> None:
    details = {**record.group().details(), "intel_rdt": {}, "network_interfaces": None}
    _print({"type": "stats", "id": record.id, "data": details})


def _print(event: dict[str, Any]) -> None:
    sys.stdout.write(json_text.encode(event, compact=True) + "\n")
    sys.stdout.flush()


EVENTS = Verb(
    "events", "print counters and out-of-memory events of a container", _events, flags=_FLAGS
)
