"""What makes a process the shim: its session, limits, descriptors, lock and log."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import sys
import time
import traceback

from cais.errors import CaisError, ConflictError
from cais.linux import process
from cais.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.shim.loop import Loop

_LOG_LIMIT = 1 << 20
_OOM_SCORE_ADJ = -999  # before a container dies of it the shim must not
_SWEEP_DELAY_S = 1.0


class Journal:
    """``<exec-root>/shim.log``: faults and warnings, at most 1 MiB and the 1 MiB before."""

    def __init__(self, path: str) -> None:
        """Open ``path`` and make it standard error, for what Python itself says at the end."""
        self._path = path
        self._open()

    def write(self, text: str) -> None:
        """Append a line. Never raises."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            if os.fstat(2).st_size > _LOG_LIMIT:
                os.rename(self._path, f"{self._path}.1")
                self._open()
            os.write(2, f"{stamp} {text}\n".encode(errors="replace"))
        except OSError:
            pass  # a full disk; there is nobody else to tell

    def report(self, error: BaseException) -> None:
        """Append a fault of ours with its traceback. Never raises."""
        self.write("".join(traceback.format_exception(error))[-16000:].rstrip())

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        os.dup2(fd, 2)
        os.close(fd)


def detach() -> None:
    """Continue in a child with a session of its own; the caller's process exits."""
    if os.fork():
        os._exit(0)
    os.setsid()


def close_inherited(keep_fd: int) -> None:
    """Close every descriptor but the standard ones and ``keep_fd``."""
    os.closerange(3, keep_fd)
    os.closerange(max(3, keep_fd + 1), os.sysconf("SC_OPEN_MAX"))


def silence_input_and_output() -> None:
    """Make /dev/null standard input and output."""
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(fd, 0)
    os.dup2(fd, 1)
    if fd > 2:
        os.close(fd)


def lock(path: str, exec_root: str) -> int:
    """Take the lock of a data root and return its descriptor; it is held until that is closed.

    ConflictError: another shim holds it.
    """
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock_fd)
        raise ConflictError(f"{path} is held by another shim") from exc
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"pid {os.getpid()}, exec root {exec_root}\n".encode(), 0)
    return lock_fd


def settle(warn: Callable[[str], None]) -> None:
    """Take orphans in, raise limits, hide from ptrace; what the host forbids is a warning."""
    process.set_child_subreaper()
    process.set_dumpable(dumpable=False)
    process.set_name(b"cais-shim")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(_OOM_SCORE_ADJ))
    except OSError as exc:
        warn(f"cannot lower the OOM score to {_OOM_SCORE_ADJ}: {exc}")
    os.umask(0o022)
    os.chdir("/")


def freeze() -> None:
    """Forbid further imports and the environment, and move what exists out of the collector's way.

    A forked child then copies fewer pages, and imports nothing from where a container could write.
    """
    os.environ.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()


class Reaper:
    """Reaps orphans that came back to the shim, a subreaper; leaves known children alone."""

    def __init__(
        self, loop: Loop, look: Callable[[], None], known_pids: Callable[[], set[int] | None]
    ) -> None:
        """Sweep after the end of a child.

        Args:
            loop: of the shim.
            look: called before: who waits for a child may find out that it has ended.
            known_pids: those reaped by somebody else; None: they cannot be told now.

        """
        self._loop = loop
        self._look = look
        self._known_pids = known_pids
        self._scheduled = False

    def wake(self) -> None:
        """A child has ended: look for orphans in a moment, once for many."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_SWEEP_DELAY_S, self.sweep)

    def sweep(self) -> None:
        """Reap every ended child that nobody else knows."""
        self._scheduled = False
        self._look()
        known = self._known_pids()
        if known is None:
            self.wake()
            return
        for pid in _children():
            if pid not in known:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue


class Signals:
    """Signals as events of the loop."""

    def __init__(self, loop: Loop, handlers: dict[int, Callable[[], None]]) -> None:
        """Call ``handlers`` from the loop. Handlers, not ignored signals: execve resets those."""
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._loop = loop
        self._handlers = handlers
        loop.watch(self._read_fd, 1, self._readable, keep=True)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in handlers:
            signal.signal(number, _nothing)

    def _readable(self, _events: int) -> None:
        for number in set(os.read(self._read_fd, 4096)):
            handler = self._handlers.get(number)
            if handler is not None:
                handler()


def complain(error: BaseException) -> str:
    """Return what to say about a failure to start."""
    if isinstance(error, CaisError | OSError):
        return f"cais-shim: {error}\n"
    return "".join(traceback.format_exception(error))


def exec_root_paths(exec_root: str) -> tuple[str, str]:
    """Return the paths of the socket and the log."""
    return (
        os.path.join(exec_root, protocol.SOCKET_NAME),
        os.path.join(exec_root, protocol.LOG_NAME),
    )


def _nothing(_number: int, _frame: object) -> None:
    pass


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return []  # a kernel without CONFIG_PROC_CHILDREN: orphans stay until the shim ends
