"""Hooks around the commands: what ``start`` waits for, and what follows a container's end.

    <root>/<id>/verdict   a FIFO, from create to start, of a container with startContainer or
                          poststart hooks: the child writes why it cannot start, or closes it by
                          execve

Imported where a container has hooks; ``end`` costs one that has none nothing but its document.

Spec: OCI runtime-spec 1.2, runtime.md "Lifecycle", steps 7 to 13.
"""

from __future__ import annotations

import os
import select

from cais.linux.signals import SIGKILL, pidfd_send_signal
from cais.runtime import control, last_hooks
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.hook_runner import HookRun
    from cais.runtime.log import Log
    from cais.runtime.state import Record
    from cais.spec.runtime import Config

_NAME = "verdict"
_TEXT_LIMIT = 65536


def make_verdict(directory: str, config: Config) -> int:
    """Make the FIFO and open it for the child; -1: no hook is run after ``create``."""
    hooks = config.get("hooks", {})
    if not hooks.get("startContainer") and not hooks.get("poststart"):
        return -1
    os.mkfifo(f"{directory}/{_NAME}", 0o600)
    # For reading too: a write then waits for whoever comes to read it.
    return os.open(f"{directory}/{_NAME}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def open_verdict(record: Record) -> int:
    """Open what the child of a created container will write to; before it may go on."""
    try:
        return os.open(f"{record.directory}/{_NAME}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def conclude_start(record: Record, verdict_fd: int, log: Log) -> None:
    """Wait until the program runs, then for the poststart hooks; closes ``verdict_fd``.

    Raises:
        LaunchError: a hook failed. The container is stopped and deleted.

    """
    directory, bundle = record.directory, record.bundle
    try:
        _check_verdict(verdict_fd)
        _wait(last_hooks.begin_poststart(record.id, directory, record.pid, bundle=bundle))
    except LaunchError:
        _stop(record)
        control.destroy(record.id, directory)
        end(record.id, directory, bundle, log)
        record.remove()
        raise
    os.unlink(f"{directory}/{_NAME}")


def end(container_id: str, directory: str, bundle: str, log: Log) -> None:
    """Run the poststop hooks of a container that is gone; their failures are warnings."""
    run = _wait(last_hooks.begin_poststop(container_id, directory, bundle=bundle))
    for text in run.warnings if run is not None else ():
        log.warning(text)


def _wait(run: HookRun | None) -> HookRun | None:
    while run is not None and not run.advance():
        select.select([run], [], [])
    return run


def _check_verdict(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    said = b""
    try:
        while len(said) < _TEXT_LIMIT:
            poll.poll()
            chunk = os.read(fd, 4096)
            if not chunk:
                break
            said += chunk
    finally:
        os.close(fd)
    if said:
        raise LaunchError(said.decode(errors="replace"), step="run hook")


def _stop(record: Record) -> None:
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError:
        return  # it has ended
    try:
        if record.is_alive():  # the number was not another's when it was opened
            pidfd_send_signal(pidfd, SIGKILL)
            select.select([pidfd], [], [])
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
