"""What ``create``, ``run`` and ``exec`` share: descriptors given on, the terminal, pid files."""

from __future__ import annotations

import os
import select
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket
from struct import pack

from cais.errors import InvalidArgumentError
from cais.linux.process import kill
from cais.runtime.arguments import NUMBER, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.arguments import Arguments, Flag
    from cais.runtime.habits import Habits
    from cais.runtime.launch import Launch, Running
    from cais.runtime.log import Log

FIRST_FD = 3
FLAGS: tuple[Flag, ...] = (
    ("console-socket", TEXT, "unix socket that gets the master side of the terminal"),
    ("pid-file", TEXT, "file to write the process id to"),
    ("pidfd-socket", TEXT, "unix socket that gets a pidfd of the process"),
    (
        "preserve-fds",
        NUMBER,
        "how many descriptors from 3 on the process gets, besides $LISTEN_FDS",
    ),
)


def check_terminal(given: Arguments, *, needs_terminal: bool, detached: bool) -> None:
    """Check that a terminal has somebody who takes its master side, and nothing else has.

    Raises:
        InvalidArgumentError: it is not so; with runc's texts.

    """
    has_socket = given.has("console-socket")
    if needs_terminal and detached and not has_socket:
        raise InvalidArgumentError(
            "cannot allocate tty if runc will detach without setting console socket"
        )
    if has_socket and not (needs_terminal and detached):
        raise InvalidArgumentError(
            "cannot use console socket if runc will not detach or allocate tty"
        )
    if needs_terminal and not detached and not any(map(os.isatty, range(3))):
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise InvalidArgumentError(f"open /dev/tty: {reason}") from None


def preserve(given: Arguments, habits: Habits) -> None:
    """Note the descriptors the process gets: ``--preserve-fds`` and those of socket activation.

    Raises:
        InvalidArgumentError: one of them is not open.

    """
    listening = os.environ.get("LISTEN_FDS", "")
    activated = int(listening) if listening.isascii() and listening.isdigit() else 0
    count = activated + given.number("preserve-fds")
    if count <= 0:
        return
    habits.preserved = range(FIRST_FD, FIRST_FD + count)
    for fd in habits.preserved:
        if not _is_given(fd):
            raise InvalidArgumentError(
                f"unable to stat preserved-fd {fd - FIRST_FD} (of {count}): "
                f"stat /proc/self/fd/{fd}: no such file or directory"
            )
    if activated:
        habits.env = [f"LISTEN_FDS={activated}".encode(), b"LISTEN_PID=1"]


def wait(launch: Launch) -> Running:
    """Wait until the process runs, or waits for ``start``."""
    while (running := launch.advance()) is None:
        select.select([launch], [], [])
    return running


def hand_over(given: Arguments, running: Running, log: Log) -> None:
    """Give on what was asked for: terminal, pidfd, process id; report warnings."""
    for text in running.warnings:
        log.warning(text)
    log.step(f"container process {running.pid} is ready")
    if given.has("console-socket") and running.terminal_fd is not None:
        _send(given.text("console-socket"), running.terminal_fd, b"/dev/ptmx")
    if given.has("pidfd-socket"):
        _send(given.text("pidfd-socket"), running.pidfd, b"pidfd")
    if given.text("pid-file"):
        write_pid_file(given.text("pid-file"), running.pid)


def end(running: Running) -> None:
    """Kill and reap a process of which somebody could not be told."""
    kill(running.pidfd)
    os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED)


def write_pid_file(path: str, pid: int) -> None:
    """Write a process id; whoever reads the file sees it whole or not at all.

    Raises:
        InvalidArgumentError: it cannot be written; or what is written first, ``.`` and its name,
            is there already: it might be a link that somebody prepared.

    """
    directory, _, name = path.rpartition("/")
    new = f"{directory}/.{name}" if directory else f".{name}"
    is_ours = False
    try:
        with open(new, "x") as file:
            is_ours = True
            file.write(str(pid))
        os.rename(new, path)
    except OSError as error:
        if is_ours:
            os.unlink(new)
        reason = (error.strerror or "").lower()
        raise InvalidArgumentError(f"open {new}: {reason}") from None


def _send(path: str, fd: int, name: bytes) -> None:
    """Give a descriptor to who listens on ``path``; ``name`` says what it is."""
    line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)
    try:
        line.connect(path)
        line.sendmsg([name], [(SOL_SOCKET, SCM_RIGHTS, pack("i", fd))])
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgumentError(f"dial unix {path}: connect: {reason}") from None
    finally:
        line.close()


def _is_given(fd: int) -> bool:
    """Whether the caller left ``fd`` open; what this program opens is close-on-exec."""
    try:
        return os.get_inheritable(fd) and "memfd:cais-runtime" not in os.readlink(
            f"/proc/self/fd/{fd}"
        )
    except OSError:
        return False
