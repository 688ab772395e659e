"""A start or an exec in progress: what the parent holds while the child prepares itself.

The child talks over a SOCK_SEQPACKET pair, one JSON object a packet, and closes its end by
execve. The parent never waits: it polls ``fileno()`` and calls ``advance()``, so a child that is
stuck (a dead network file system) stalls nobody else.

    child  {"warning": text}                     any number
           {"terminal": true} + 1 descriptor     the master side of its terminal
           {"hooks": true}, {"listener": n}      see ``errands``; it waits for the parent's word
           {"process": pid}                      exec, or a pid namespace joined: the process
                                                 inside, which waits for
    parent {"go": true}                          the parent's word (also in a user namespace)
           {"ready": true}                       the next step is execve
           {"error": {errno, step, message, kind}}
           end of file                           after ready: execve happened

An error may come after ready, of a startContainer hook.
"""

from __future__ import annotations

import os

from cais.errors import InternalError
from cais.linux.process import kill, start_ticks
from cais.linux.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    from cais.runtime.channel import Channel
    from cais.runtime.errands import Errands
    from cais.runtime.forerunner import Forerunner

    Kind = Literal["not-found", "not-permitted", "user", "workdir", "setup"]


class LaunchError(InternalError):
    """The user's program could not be started.

    ``kind`` says whose fault it is: ``not-found`` (Docker's exit code 127: the executable, a
    kernel parameter) and ``not-permitted`` (126: the executable) stand for a code, ``user`` for
    what Docker's daemon finds out before its runtime (names in the container's passwd and group
    files, a working directory that is a file), ``workdir`` is about the working directory,
    ``setup`` everything else. The message is the tail of Docker's text
    (``exec: "x": executable file not found in $PATH``) without its prefix.
    """

    def __init__(
        self, message: str, *, errno: int = 0, step: str = "", kind: Kind = "setup"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno
        self.step = step
        self.kind = kind


class Stdio:
    """The descriptors a process gets as 0, 1 and 2; borrowed, never closed here."""

    __slots__ = ("stderr", "stdin", "stdout")

    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr


class Running:
    """The user's program has been execve'd (or waits for ``start``, when it was held).

    The caller owns ``pidfd`` and ``terminal_fd`` (the master side, None without a terminal) and
    reaps ``pid``, its child. ``warnings`` are sentences for the user about what was clamped.
    """

    __slots__ = ("pid", "pidfd", "start_ticks", "terminal_fd", "warnings")

    def __init__(
        self, pid: int, pidfd: int, start_ticks: int, terminal_fd: int | None, warnings: list[str]
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.start_ticks = start_ticks
        self.terminal_fd = terminal_fd
        self.warnings = warnings


class Launch:
    """A start or exec in progress; owns its descriptors until it becomes ``Running`` or fails.

    ``pid`` and ``pidfd`` are those of the container process: at once for a start; for an exec,
    and a start in another's pid namespace, None and -1 until the process inside exists.
    ``children`` has then a forerunner too, which ``advance`` and ``abort`` reap: a SIGCHLD loop
    must leave those alone, that is, wait for pids it knows and not for any child. ``entered`` is
    called once the process is known to be in its control group, and ``oom_kills`` when it has
    ended early: how many processes of that group the kernel has ended for want of memory.
    """

    __slots__ = (
        "_channel",
        "_clean_up",
        "_errands",
        "_forerunner",
        "_held",
        "_ready",
        "_terminal_fd",
        "_warnings",
        "entered",
        "oom_kills",
        "pid",
        "pidfd",
    )

    def __init__(
        self,
        channel: Channel,
        process: tuple[int, int] | None,
        forerunner: Forerunner | None = None,
        *,
        warnings: Sequence[str] = (),
        held: bool = False,
        errands: Errands | None = None,
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = channel
        self.pid: int | None
        self.pid, self.pidfd = process or (None, -1)
        self._forerunner = forerunner
        self._warnings = list(warnings)
        self._held = held
        self._errands = errands
        self._ready = False
        self._terminal_fd = -1
        self._clean_up = clean_up
        self.entered: Callable[[], None] = lambda: None
        self.oom_kills: Callable[[], int] = lambda: 0

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``advance`` can make progress.

        It may be another one after each ``advance``.
        """
        busy_fd = self._errands.fileno() if self._errands is not None else -1
        if busy_fd >= 0:
            return busy_fd
        awaited = self._forerunner if self.pid is None else None
        return (awaited or self._channel).fileno()

    @property
    def children(self) -> set[int]:
        """The pids of the caller's children that are reaped here, or by who has ``Running``."""
        known = self._forerunner.children if self._forerunner is not None else set()
        return known if self.pid is None else known | {self.pid}

    def warn(self, text: str) -> None:
        """Add a sentence for the user."""
        self._warnings.append(text)

    def advance(self) -> Running | None:
        """Read what the child said; return None while it is not finished. Never blocks.

        Raises:
            LaunchError: the child is gone and reaped, the cgroup of a start is removed.

        """
        try:
            if self._errands is not None:
                self._errands.advance()
            while not (self._ready and self._held):
                message, fd = self._channel.receive()
                if message is None:
                    break
                self._take(message, fd)
            if self._errands is not None and self._ready and self.pid and not self._held:
                self._errands.finish(self.pid)
        except BlockingIOError:
            if not self.is_deserted():
                return None
        except BaseException:
            self.abort()
            raise
        if not self._ready or self.pid is None:
            raise self._died()
        return self._finish(self.pid)

    def abort(self) -> None:
        """Kill and reap the child and give up what was made for it; idempotent.

        Blocks: for as long as the kernel needs to end a killed process.
        """
        if self.pidfd >= 0:
            kill(self.pidfd)
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            os.close(self.pidfd)
        if self._forerunner is not None:
            self._forerunner.kill(with_its_process=self.pid is None)
        if self._terminal_fd >= 0:
            os.close(self._terminal_fd)
        self._forerunner, self.pidfd, self._terminal_fd = None, -1, -1
        self._channel.close()
        if self._errands is not None:
            self._errands.end()
        self._clean_up()

    def _take(self, message: dict[str, Any], fd: int) -> None:
        """Act on one message; whatever is not expected now is a fault of ours or an attack.

        The process born inside holds the line until execve, where a container with
        CAP_SYS_PTRACE could speak for it: it is heard only after the helper has named it, and
        then can do no more than fail.
        """
        prepared = self._forerunner is not None and self._forerunner.prepares
        is_last = prepared and self.pid is not None
        if not self._is_from_child():
            if fd >= 0:
                os.close(fd)
            raise LaunchError("another process spoke for the child")
        if message.get("terminal") is True and fd >= 0 and self._terminal_fd < 0 and not is_last:
            self._terminal_fd = fd
        elif fd >= 0:
            os.close(fd)
            raise LaunchError("the child sent a descriptor nobody asked for")
        elif self._forerunner and type(message.get("process")) is int and self.pid is None:
            # Our own child, not yet reaped: the number cannot have been given to another.
            self.pid, self.pidfd = message["process"], os.pidfd_open(message["process"])
            if self._errands is not None:
                self._errands.process_known(self.pid)
            self._forerunner.make_way(self._channel)
        elif isinstance(message.get("warning"), str):
            self._warnings.append(message["warning"])
        elif message.get("ready") is True:
            self._ready = True
        elif is_last or not self._is_errand(message):
            raise error_of(message.get("error"))

    def _is_errand(self, message: dict[str, Any]) -> bool:
        if self._errands is None or self._ready or "error" in message:
            return False
        asking = self._forerunner if self.pid is None else None
        return self._errands.take(message, self.pid, asking.pidfd if asking else self.pidfd)

    def _is_from_child(self) -> bool:
        if self.pid is not None:
            return self._channel.sender == self.pid
        return self._forerunner is None or self._forerunner.is_heard(self._channel.sender)

    def is_deserted(self) -> bool:
        """Say whether nobody will say more, though a process nobody knows may hold the line.

        ``fileno`` does not tell of all such ends; of the others the kernel tells by SIGCHLD.
        """
        awaited = self._forerunner if self.pid is None else None
        return awaited is not None and awaited.has_ended_silently()

    def _died(self) -> LaunchError:
        """Return the error for a child that ended without a word, having cleaned up."""
        code = None
        first = self._forerunner.pidfd if self._forerunner is not None else -1
        for fd in (first, self.pidfd):
            if fd >= 0:
                kill(fd)
                ended = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOWAIT)
                code = ended.si_status if ended else None
        oom_killed = code == SIGKILL and self.oom_kills() > 0
        self.abort()
        if oom_killed:
            return LaunchError("container init was OOM-killed (memory limit too low?)")
        return LaunchError(f"the container's first process ended while it was set up ({code})")

    def _finish(self, pid: int) -> Running:
        if self._forerunner is not None:
            self._forerunner.reap()
        self._channel.close()
        self.entered()
        terminal_fd = self._terminal_fd if self._terminal_fd >= 0 else None
        running = Running(pid, self.pidfd, start_ticks(pid), terminal_fd, self._warnings)
        self._forerunner, self.pidfd, self._terminal_fd = None, -1, -1
        return running


def error_of(facts: object) -> LaunchError:
    """Return what a child reported as an error."""
    if not isinstance(facts, dict):
        return LaunchError("the child sent a message nobody knows")
    kind = facts.get("kind")
    code = facts.get("errno")
    return LaunchError(
        str(facts.get("message", "")),
        errno=code if isinstance(code, int) else 0,
        step=str(facts.get("step", "")),
        kind=kind if kind in ("not-found", "not-permitted", "user", "workdir") else "setup",
    )
