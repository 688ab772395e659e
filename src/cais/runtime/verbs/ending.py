"""``kill`` and ``delete``: signals to a container, and its end."""

from __future__ import annotations

import os
import time

from cais.errors import (
    CaisError,
    ConflictError,
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
)
from cais.linux import signals
from cais.linux.signals import SIGKILL, pidfd_send_signal
from cais.runtime import control, state
from cais.runtime.arguments import SWITCH
from cais.runtime.verbs import hooking
from cais.runtime.verbs.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.state import Record
    from cais.runtime.verbs.verb import Context

_KILL_FLAGS: tuple[Flag, ...] = (
    ("all,a", SWITCH, "send the signal to every process of the container"),
)
_DELETE_FLAGS: tuple[Flag, ...] = (
    ("force,f", SWITCH, "kill the container first if it runs; succeed if there is none"),
)
_KILL_TIMEOUT_S = 10
_FREEZE_TIMEOUT_S = 2
_BATCH = 256  # processes signalled at a time: a caller may have 1024 descriptors
_MOST_DIGITS = len(str(2**31))  # kill(2) takes an int


def parse_signal(text: str) -> int:
    """Return the number of ``TERM``, ``SIGTERM``, ``15``; numbers are left to the kernel.

    Raises:
        InvalidArgumentError: no such name, or a number beyond all the kernel takes.

    """
    digits = text.removeprefix("-")
    if text.isascii() and digits.isdigit() and len(digits) < _MOST_DIGITS:
        return int(text)
    name = text.upper()
    number = signals.find_number(name if name.startswith("SIG") else f"SIG{name}")
    if number is None:
        raise InvalidArgumentError(f'unknown signal "{text}"')
    return number


def _kill(given: Arguments, context: Context) -> int:
    record = state.load(context.root, given.rest[0])
    number = parse_signal(given.rest[1] if len(given.rest) == 2 else "SIGTERM")
    if given.has("all"):
        _signal_all(record, number)
    elif record.status() == "stopped":
        raise ConflictError("container not running")
    else:
        _signal_first(record, number)
    return 0


def _signal_first(record: Record, number: int) -> None:
    try:
        pidfd = os.pidfd_open(record.pid)
        try:
            if not record.is_alive():  # the number was another's when it was opened
                raise ConflictError("container not running")
            pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
    except OSError as error:
        raise ConflictError(f"unable to signal init: {(error.strerror or '').lower()}") from None
    if number == SIGKILL:
        _thaw(record)


def _signal_all(record: Record, number: int) -> None:
    """Signal every process of the container; while they stand still, so that none is missed.

    Raises:
        ConflictError: one may not be signalled.
        UnsupportedError: nobody knows them all.

    """
    pids = record.pids()
    if number == SIGKILL:
        control.kill_all(record.id, record.directory)
        return
    # Among them, this process would stop itself.
    is_frozen_here = os.getpid() not in pids and _freeze(record)
    try:
        pids = [pid for pid in record.pids() if pid]  # 0: of another pid namespace
        for start in range(0, len(pids), _BATCH):
            _signal_members(record, pids[start : start + _BATCH], number)
    finally:
        if is_frozen_here and record.group().exists():
            record.group().thaw()


def _freeze(record: Record) -> bool:
    """Freeze the group if it runs, and can be frozen; say whether it is to be thawed again."""
    group = record.group()
    if not group.exists() or group.is_frozen():
        return False
    try:
        group.freeze(_FREEZE_TIMEOUT_S)
    except (CaisError, OSError):
        return False  # no freezer, no right to it, or a process that is stuck in the kernel
    return True


def _signal_members(record: Record, pids: list[int], number: int) -> None:
    """Signal those of ``pids`` that are the container's now; a number may be another's by now."""
    pidfds: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                pidfds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        for pid in pidfds.keys() & record.pids():
            try:
                pidfd_send_signal(pidfds[pid], number)
            except ProcessLookupError:
                continue
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise ConflictError(f"unable to signal {pid}: {reason}") from None
    finally:
        for fd in pidfds.values():
            os.close(fd)


def _thaw(record: Record) -> None:
    """Let a frozen process end: on cgroup v1 it would not, not even by SIGKILL."""
    group = record.group()
    if group.exists() and group.is_frozen():
        group.thaw()


def _delete(given: Arguments, context: Context) -> int:
    container_id = given.rest[0]
    try:
        record = state.load(context.root, container_id)
    except NotFoundError:
        _delete_unfinished(container_id, context)
        if given.has("force"):
            return 0
        raise
    status = record.status()
    if status in ("running", "paused") and not given.has("force"):
        raise ConflictError(f"cannot delete container {container_id} that is not stopped: {status}")
    if status != "stopped":
        try:
            _signal_first(record, SIGKILL)
        except ConflictError:  # it has ended this moment
            if record.is_alive():
                raise
        _wait_until_stopped(record)
    control.destroy(record.id, record.directory)
    hooking.end(record.id, record.directory, record.bundle, context.log)
    record.remove()
    return 0


def _delete_unfinished(container_id: str, context: Context) -> None:
    """Remove what a start left that was killed: perhaps a process that waits to be started.

    The document alone tells of it, by its control group; which is left alone when it is another
    container's, for the start may have been killed before it found that out.
    """
    directory = f"{context.root}/{container_id}"
    path = _group_path(container_id, directory)  # none: it was killed before it had a group
    others = state.load_all(context.root, context.log.warning) if path else ()
    if path and all(_group_path(other.id, other.directory) != path for other in others):
        control.destroy(container_id, directory)
    state.discard(directory)


def _group_path(container_id: str, directory: str) -> str:
    """Return the path of a container's control group; empty without one, or a sound document."""
    try:
        return control.cgroup_of(container_id, directory).path
    except (CaisError, OSError):
        return ""


def _wait_until_stopped(record: Record) -> None:
    end = time.monotonic() + _KILL_TIMEOUT_S
    while record.is_alive():
        if time.monotonic() > end:
            raise DeadlineError("container init still running")
        time.sleep(0.005)


KILL = Verb(
    "kill",
    "send a signal (default: SIGTERM) to the first process of a container",
    _kill,
    flags=_KILL_FLAGS,
    operands="<container-id> [signal]",
    most=2,
)
DELETE = Verb("delete", "remove what a container holds", _delete, flags=_DELETE_FLAGS)
