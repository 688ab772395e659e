"""Stay with a container in the foreground: pass signals, the terminal's bytes and size, the exit.

Spec: what runc does for ``run`` and ``exec`` without ``--detach``.
"""

from __future__ import annotations

import os
import select
from fcntl import ioctl

from cais.linux import process, signals, terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.launch import Running

_KEPT = (  # from being forwarded
    *("SIGKILL", "SIGSTOP", "SIGCHLD"),
    *("SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV"),  # our own faults
    *("SIGTTIN", "SIGTTOU"),  # stop whoever uses a terminal from its background
)
_SIGCHLD = process.SIGCHLD
_CHUNK_BYTES = 32768


class Front:
    """The foreground of one process: enter before it runs, so that no signal is lost."""

    def __init__(self, *, adopts: bool = False) -> None:
        """Begin; with ``adopts`` the orphans of the container are reaped here (a subreaper)."""
        if adopts:
            process.set_child_subreaper()
            signals.signal(_SIGCHLD, lambda *_: None)
        self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._write_fd = write_fd
        signals.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        for number in signals.valid_signals() - set(map(signals.find_number, _KEPT)):
            signals.signal(number, lambda *_: None)
        self._is_watched = True

    def stay(self, running: Running) -> int:
        """Serve the process until it ends; return its exit code.

        Blocks: for the life of the process.
        """
        restore = _make_raw() if running.terminal_fd is not None else _nothing
        try:
            return self._serve(running)
        finally:
            restore()

    def _serve(self, running: Running) -> int:
        master_fd = running.terminal_fd
        poll = select.poll()
        poll.register(running.pidfd, select.POLLIN)
        poll.register(self._read_fd, select.POLLIN)
        if master_fd is not None:
            _copy_size(master_fd)
            poll.register(master_fd, select.POLLIN)
            poll.register(0, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._read_fd:
                    self._pass_signals(running)
                elif fd == 0 and master_fd is not None:
                    if not _write(master_fd, _read(0)):
                        poll.unregister(0)
                elif fd == master_fd and not self._show(fd):
                    poll.unregister(fd)
                    master_fd = None
            code = process.reap(running.pidfd)
            if code is not None:
                while master_fd is not None and select.select([master_fd], [], [], 0)[0]:
                    master_fd = master_fd if self._show(master_fd) else None
                return code

    def _show(self, master_fd: int) -> bool:
        """Pass on what the program says to its terminal; False at the end.

        What nobody takes any more is read all the same: the program would wait for ever.
        """
        data = _read(master_fd)
        self._is_watched = self._is_watched and _write(1, data)
        return bool(data)

    def _pass_signals(self, running: Running) -> None:
        for number in os.read(self._read_fd, 512):
            if number == _SIGCHLD:
                _reap_all_but(running.pid)
                continue
            if number == signals.SIGWINCH:
                if running.terminal_fd is not None:
                    _copy_size(running.terminal_fd)
                continue
            try:
                signals.pidfd_send_signal(running.pidfd, number)
            except ProcessLookupError:
                return


def _reap_all_but(pid: int) -> None:
    """Reap what has ended; the process that is served is reaped when its end is seen."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == pid:
            return
        os.waitpid(ended.si_pid, 0)


def _make_raw() -> Callable[[], None]:
    """Make the terminal at 0, if it is one, pass everything on; return what restores it."""
    if not os.isatty(0):
        return _nothing
    # Here: most commands have no terminal.
    import termios

    saved = termios.tcgetattr(0)
    raw = termios.tcgetattr(0)
    raw[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    raw[1] &= ~termios.OPOST
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(0, termios.TCSADRAIN, raw)

    def restore() -> None:
        try:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        except termios.error:
            return  # the terminal is gone

    return restore


def _nothing() -> None:
    return


def _copy_size(master_fd: int) -> None:
    if os.isatty(0):
        size = ioctl(0, terminal.TIOCGWINSZ, bytes(8))
        ioctl(master_fd, terminal.TIOCSWINSZ, size)


def _read(fd: int) -> bytes:
    """Read what is there; nothing at the end."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except OSError:  # EIO: the last user of the terminal is gone
        return b""


def _write(fd: int, data: bytes) -> bool:
    """Write all of it, also to who does not take it at once; False: to nobody, or it was none."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:  # EPIPE; EIO of a terminal that is gone
            return False
    return bool(data)
