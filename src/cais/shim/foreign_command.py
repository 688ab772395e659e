"""One run of a foreign runtime's command: a child watched by its pidfd, never waited for."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from signal import SIGKILL, pidfd_send_signal

from cais.errors import UnavailableError
from cais.linux import process
from cais.runtime import channel as channels
from cais.runtime.launch import LaunchError
from cais.shim import foreign_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.runtime.channel import Channel
    from cais.runtime.launch import Kind
    from cais.shim.foreign_desk import Desk

_ENVIRONMENT = [b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
# What runtimes put before the reason; the engine has Docker's own words for it.
_PREFIXES = (
    *("runc create failed: ", "runc start failed: ", "runc exec failed: ", "exec failed: "),
    "unable to start container process: ",
)


class Command:
    """A command under way. Its owner polls ``fileno()``, then calls ``finish()``; or ``abort()``.

    ``ended`` is called once, when it has been reaped.
    """

    def __init__(
        self,
        child: tuple[int, int],
        line: Channel,
        desk: Desk,
        name: str,
        ended: Callable[[Command], None],
    ) -> None:
        self.pid, self._pidfd = child
        self._line = line
        self._desk = desk
        self._name = name
        self._ended = ended

    def fileno(self) -> int:
        """Return what becomes readable when the command has ended."""
        return self._pidfd

    def finish(self) -> None:
        """Reap the command, which has ended.

        Raises:
            LaunchError: it failed; the text is the runtime's own.

        """
        code = process.reap(self._pidfd)
        assert code is not None, "finish() is for a command that has ended"
        try:
            message = self._line.receive()[0]
        except BlockingIOError:  # a descendant holds the other end: then it was executed
            message = None
        self._close()
        if message is not None:
            raise _error_of(message)
        if code:
            said = self._desk.explanation() or f"{self._name} ended with status {code}"
            raise failure(said)

    def abort(self) -> None:
        """Kill and reap it; idempotent.

        Blocks: for as long as the kernel needs to end a killed process.
        """
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd_send_signal(self._pidfd, SIGKILL)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self._close()

    def _close(self) -> None:
        os.close(self._pidfd)
        self._pidfd = -1
        self._line.close()
        self._ended(self)


def spawn(
    path: str,
    arguments: Sequence[str],
    desk: Desk,
    ended: Callable[[Command], None],
    *,
    streams: Sequence[int] = (),
    complete: Callable[[], None] | None = None,
    flags: int = 0,
) -> Command:
    """Start ``path`` with ``arguments``.

    Args:
        path: of the runtime.
        arguments: all but the first, which is the path.
        desk: where its log goes.
        ended: see ``Command``.
        streams: the command's 0, 1 and 2 (borrowed), which become those of a container; with none
            of them it has /dev/null, and what it says is kept on the desk.
        complete: called in the child before the command is executed.
        flags: CLONE_NEW* of the child.

    Raises:
        UnavailableError: no process or descriptor is left.

    """
    words = [os.fsencode(word) for word in (path, *arguments)]
    program = (words[0], process.Program(words, _ENVIRONMENT))
    ours, theirs = channels.open_channel()
    own: list[int] = [] if streams else _open_quiet(desk)
    try:
        ignored = process.ignored_signals()
        pid, pidfd = process.clone(flags)
        if pid == 0:
            foreign_child.run(theirs, program, streams or own, ignored, complete)
    except OSError as exc:
        ours.close()
        raise UnavailableError(f"cannot start {path}: {exc}") from exc
    finally:
        theirs.close()
        for fd in own:
            os.close(fd)
    return Command((pid, pidfd), ours, desk, os.path.basename(path), ended)


def has_ended(pidfd: int) -> bool:
    """Whether the process behind a pidfd has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def failure(said: str) -> LaunchError:
    """Return the error for what a runtime says, with the fault where Docker sees it."""
    for prefix in _PREFIXES:
        said = said.removeprefix(prefix)
    for code in (errno.EACCES, errno.ENOTDIR, errno.ENOENT):
        text = os.strerror(code)
        # As Go spells it: clients look for these words, and runtimes in C begin with a capital.
        said = said.replace(text, text.lower())
        if text.lower() in said:
            return LaunchError(said, errno=code, kind=_kind(code, said))
    if "executable file not found" in said:
        return LaunchError(said, errno=errno.ENOENT, kind="not-found")
    return LaunchError(said)


def _kind(code: int, said: str) -> Kind:
    if code == errno.EACCES:
        return "not-permitted"
    if code == errno.ENOENT:
        return "workdir" if said.startswith("chdir ") else "not-found"
    return "setup"


def _open_quiet(desk: Desk) -> list[int]:
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        said_fd = os.open(desk.file("stderr"), flags, 0o600)
    except OSError:
        os.close(null_fd)
        raise
    return [null_fd, os.dup(null_fd), said_fd]


def _error_of(message: dict[str, object]) -> LaunchError:
    facts = message.get("error")
    if not isinstance(facts, dict):
        return LaunchError("the runtime's child sent a message nobody knows")
    return LaunchError(str(facts["message"]), errno=int(facts["errno"]), kind=facts["kind"])
