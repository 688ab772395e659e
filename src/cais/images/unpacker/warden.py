"""The program whose children unpack: ``warden <descriptor of the control line>``.

It loads what a worker needs, compiles the filter, and then clones a confined worker for each
request, in about two milliseconds. It ends when the daemon hangs up or dies, and the kernel ends
its workers with it. One thread; nothing is imported in a worker.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
from typing import TYPE_CHECKING

from cais.errors import CaisError
from cais.images.unpacker import confinement, messages, worker
from cais.linux import process

if TYPE_CHECKING:
    from typing import NoReturn

_PACKET = 64
_OOM_SCORE_ADJ = "500"
_NO_NAMESPACES = (errno.EPERM, errno.EINVAL, errno.ENOSPC)
_STANDARD = (0, 1, 2)  # /dev/null: a number that is free would be a layer's file next


def main(args: list[str]) -> NoReturn:
    """Serve until the control line ends."""
    control = socket.socket(fileno=int(args[0]))
    _volunteer()
    warden = Warden(control)
    gc.freeze()
    warden.run()
    warden.end()
    os._exit(0)


def _volunteer() -> None:
    """Be killed before the daemon when memory is short: what a layer asks for is its own affair."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE_ADJ)


class Warden:
    """The control line, and the workers that live."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._reins: dict[int, socket.socket] = {}
        """Of each worker, by its pidfd."""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._namespaces = confinement.NAMESPACES
        self._refused: list[str] = []
        self._filter: bytes | None = None
        try:
            self._filter = confinement.compile_filter()
        except CaisError as exc:
            self._refused.append(f"a filter of system calls ({exc})")

    def run(self) -> None:
        """Serve until the control line ends."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._reins:
                    self._bury(fd)
                elif fd != self._control.fileno():
                    self._kill(fd)
                elif not self._serve():
                    return

    def end(self) -> None:
        """Take the workers along: they would become somebody else's children."""
        for pidfd in self._reins:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in list(self._reins):
            self._bury(pidfd)

    def _serve(self) -> bool:
        packet, fds, _, _ = socket.recv_fds(self._control, _PACKET, 2, socket.MSG_CMSG_CLOEXEC)
        if packet != messages.SPAWN or len(fds) != 2:
            return False
        line, reins = (socket.socket(fileno=fd) for fd in fds)
        try:
            pid, pidfd = self._clone()
            if pid == 0:
                self._be_worker(line)
        except OSError as exc:
            _write(reins, f"was not born: {exc}")
            reins.close()
        else:
            self._reins[pidfd] = reins
            self._poll.register(reins, select.POLLIN)
            self._poll.register(pidfd, select.POLLIN)
        finally:
            line.close()
        return True

    def _clone(self) -> tuple[int, int]:
        try:
            return process.clone(self._namespaces)
        except OSError as exc:
            if not self._namespaces or exc.errno not in _NO_NAMESPACES:
                raise
            self._refused.append(f"namespaces ({exc})")
            self._namespaces = 0
            return process.clone(0)

    def _be_worker(self, line: socket.socket) -> NoReturn:
        status = 1
        try:
            os.dup2(0, 2)  # its complaints would go into the daemon's memory
            keep = (*_STANDARD, line.fileno())
            is_apart = bool(self._namespaces)
            more = confinement.confine(keep, self._filter, is_in_namespaces=is_apart)
            messages.send(line, {"refused": [*self._refused, *more]})
            status = worker.serve(line)
        finally:
            os._exit(status)

    def _kill(self, reins_fd: int) -> None:
        """The daemon let go of a worker's reins."""
        self._poll.unregister(reins_fd)
        for pidfd, reins in self._reins.items():
            if reins.fileno() == reins_fd:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _bury(self, pidfd: int) -> None:
        """A worker has ended: say how."""
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert ended is not None
        reins = self._reins.pop(pidfd)
        word = "exited" if ended.si_code == os.CLD_EXITED else "killed"
        _write(reins, f"{word} {ended.si_status}")
        self._poll.unregister(pidfd)
        with contextlib.suppress(KeyError):
            self._poll.unregister(reins)
        reins.close()
        os.close(pidfd)


def _write(reins: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # nobody waits for it any more
        reins.send(text.encode(), socket.MSG_NOSIGNAL)
