"""A start or an exec in progress: what the parent holds while the child prepares itself.

The child talks over a SOCK_SEQPACKET pair, one JSON object a packet, and closes its end by
execve. The parent never waits: it polls ``fileno()`` and calls ``advance()``, so a child that is
stuck (a dead network file system) stalls nobody else.

    child  {"warning": text}                     any number
           {"terminal": true} + 1 descriptor     the master side of its terminal
           {"process": pid} + 1 descriptor       exec only: the process inside, and its pidfd
           {"ready": true}                       the next step is execve
           {"error": {errno, step, message, kind}}
           end of file                           after ready: execve happened
"""

from __future__ import annotations

from cais.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["not-found", "not-permitted", "user", "workdir", "setup"]


class LaunchError(InternalError):
    """The user's program could not be started.

    ``kind`` says whose fault it is: ``not-found`` (Docker's exit code 127) and ``not-permitted``
    (126) are about the executable, ``user`` about names in the container's passwd and group
    files, ``workdir`` about the working directory, ``setup`` everything else. The message is the
    tail of Docker's text (``exec: "x": executable file not found in $PATH``) without its prefix.
    """

    def __init__(self, message: str, *, errno: int = 0, step: str = "", kind: Kind = "setup") -> None:
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

    ``pid`` and ``pidfd`` are those of the container process: at once for a start; for an exec
    None and -1 until the process inside exists. ``helper_pid`` is a child of the caller that
    only prepares (exec; None for a start) and that ``advance`` and ``abort`` reap: a SIGCHLD
    loop must leave it alone, that is, wait for pids it knows and not for any child.
    """

    pid: int | None
    pidfd: int
    helper_pid: int | None

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``advance`` can make progress."""
        raise NotImplementedError

    def advance(self) -> Running | None:
        """Read what the child said; return None while it is not finished. Never blocks.

        Raises:
            LaunchError: the child is gone and reaped, the cgroup of a start is removed.

        """
        raise NotImplementedError

    def abort(self) -> None:
        """Kill and reap the child and give up what was made for it; idempotent."""
        raise NotImplementedError
