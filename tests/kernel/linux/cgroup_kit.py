"""Processes in a control group of their own, for kernel tests of either version."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from cais.linux.cgroups import detect, join, open_cgroup
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.linux.cgroups import Cgroup
    from cais.spec.runtime import Resources

HIERARCHY = detect()


@contextlib.contextmanager
def group(resources: Resources | None = None, name: str = "") -> Iterator[Cgroup]:
    """A fresh group, whose processes are killed and reaped, and which is then removed."""
    made = open_cgroup(HIERARCHY, f"{parent()}/g{name}")
    made.create(resources or {})
    try:
        yield made
    finally:
        made.kill_all(PATIENCE_S)
        reap_all()
        made.remove()
        open_cgroup(HIERARCHY, parent()).remove()


def parent() -> str:
    """Return a path no other test run has."""
    return f"/cais-test-{os.getpid()}"


def spawn(group: Cgroup, body: Callable[[], object]) -> int:
    """Fork a child that joins ``group`` by itself and exits with what ``body`` returns."""
    fds = group.join_fds()
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            join(fds)
            status = int(body() or 0)  # type: ignore[call-overload]
        except MemoryError:
            status = 254
        finally:
            os._exit(status)
    for fd in fds:
        os.close(fd)
    return pid


def status_of(pid: int) -> int:
    """Reap: the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(group: Cgroup, body: Callable[[], object]) -> int:
    """Spawn and reap."""
    return status_of(spawn(group, body))


def sleeper(group: Cgroup) -> int:
    """Spawn a child that sleeps, and wait until it is in the group."""
    pid = spawn(group, lambda: time.sleep(60))
    wait_until(lambda: pid in group.pids())
    return pid


def errno_of(body: Callable[[], object]) -> int:
    """Return the errno ``body`` fails with, 0 if it does not."""
    try:
        body()
    except OSError as exc:
        return exc.errno or 0
    return 0


def reap_all() -> None:
    """Reap whatever has ended; the callers' children are all dead by now."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def fork_until_refused(limit: int = 64) -> int:
    """Fork sleeping children until EAGAIN; kill them and return how many there were."""
    children: list[int] = []
    try:
        for _ in range(limit):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    except BlockingIOError:  # EAGAIN
        pass
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(children)
