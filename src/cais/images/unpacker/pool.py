"""The workers of one image store: a warden as long as somebody unpacks, and whom it has born.

Starting Python and loading what a worker needs takes a tenth of a second. So whoever is going to
unpack says so early (``open``), and the warden starts while an archive is still being received;
what it is asked meanwhile waits on its control line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from cais.errors import InternalError, UnavailableError
from cais.images.unpacker.messages import SPAWN
from cais.images.unpacker.worker_handle import Worker
from cais.linux import memfd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

STALL_S = 300.0
"""Without a word for so long, a worker hangs: it speaks each second, or waits for the disk."""

_FEWEST, _MOST = 2, 8
_ENDING_S = 10.0
_COMPLAINT_BYTES = 4096
_CODE = (
    "import sys; sys.path[:0] = [sys.argv[1]]; sys.path.append(sys.argv[2]); "
    "from cais.images.unpacker.warden import main; main(sys.argv[3:])"
)


class Unpacker:
    """Lends workers. Thread-safe.

    Args:
        parallel: how many layers at once; None: one for each processor, two at least.
        stall_s: how long a worker may be silent.

    """

    def __init__(self, parallel: int | None = None, stall_s: float = STALL_S) -> None:
        wanted = parallel or min(max(os.cpu_count() or 1, _FEWEST), _MOST)
        self._permits = threading.BoundedSemaphore(wanted)
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._users = 0
        self._warden: _Warden | None = None
        self._idle: list[Worker] = []
        self._turns: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Have a warden at hand until the end of the block; it starts in the background.

        Raises:
            UnavailableError: it cannot be started.

        """
        with self._lock:
            if self._warden is None:
                self._warden = _Warden()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                ended = self._end() if not self._users else ([], None)
            _dismiss(*ended)

    def borrow(self) -> Loan:
        """Return a worker, between ``open``'s begin and end; the loan must be ended before it.

        Blocks: while as many are at work as may be. Whoever unpacks several layers that wait for
        one another borrows in their order: then the lowest one always has its worker.
        """
        self._permits.acquire()
        try:
            with self._lock:
                assert self._warden is not None, "the unpacker is not open"
                worker = self._idle.pop() if self._idle else self._warden.spawn(self._stall_s)
        except BaseException:
            self._permits.release()
            raise
        return Loan(worker, self._take_back)

    def _take_back(self, worker: Worker | None) -> None:
        if worker is not None:
            with self._lock:
                self._idle.append(worker)
        self._permits.release()

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Keep everybody else from what ``name`` stands for: pulls of one image bring it once."""
        with self._lock:
            lock, waiting = self._turns.get(name) or (threading.Lock(), 0)
            self._turns[name] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                waiting = self._turns[name][1] - 1
                self._turns[name] = (lock, waiting)
                if not waiting:
                    del self._turns[name]

    def _end(self) -> tuple[list[Worker], _Warden | None]:
        ended = self._idle, self._warden
        self._idle, self._warden = [], None
        return ended


class Loan:
    """A worker that belongs to somebody until the loan is ended, one way or the other."""

    def __init__(self, worker: Worker, take_back: Callable[[Worker | None], None]) -> None:
        self.worker = worker
        self._take_back = take_back
        self._lock = threading.Lock()
        self._is_over = self._is_killed = False

    def give_back(self) -> None:
        """Return a worker that has done all it was told, unless it was killed at that moment."""
        if not self._end():
            return
        if self._is_killed:
            self._destroy()
        else:
            self._take_back(self.worker)

    def discard(self) -> None:
        """End the worker, which is dead afterwards; nothing happens if the loan is over."""
        if self._end():
            self._destroy()

    def kill(self) -> None:
        """Have whoever uses the worker fail; any thread. Nothing happens if the loan is over."""
        with self._lock:
            if not self._is_over:
                self._is_killed = True
                self.worker.kill()

    def _destroy(self) -> None:
        try:
            self.worker.destroy()
        finally:
            self._take_back(None)

    def _end(self) -> bool:
        with self._lock:
            was_over, self._is_over = self._is_over, True
        return not was_over


def _dismiss(workers: list[Worker], warden: _Warden | None) -> None:
    for worker in workers:
        worker.leave()
    if warden is not None:
        warden.end()


class _Warden:
    """The process, and our end of its control line."""

    def __init__(self) -> None:
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaint_fd = os.memfd_create("warden-complaint", os.MFD_CLOEXEC)
        self._complaint = open(complaint_fd, "rb", closefd=True)  # noqa: SIM115 - closed by end
        try:
            self._process = subprocess.Popen(
                _command(control.fileno()),
                pass_fds=[control.fileno()],
                env=memfd.library_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaint_fd,
                start_new_session=True,
            )
        except OSError as exc:
            self._control.close()
            self._complaint.close()
            raise UnavailableError(f"cannot start the unpacking process: {exc}") from exc
        finally:
            control.close()

    def spawn(self, stall_s: float) -> Worker:
        """Ask for a worker; it comes into being while its first job is on its way."""
        line, its_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reins, its_reins = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            descriptors = [its_line.fileno(), its_reins.fileno()]
            socket.send_fds(self._control, [SPAWN], descriptors, socket.MSG_NOSIGNAL)
        except OSError as exc:
            line.close()
            reins.close()
            raise InternalError(f"the unpacking process is gone: {self._said()}") from exc
        finally:
            its_line.close()
            its_reins.close()
        return Worker(line, reins, stall_s)

    def end(self) -> None:
        """Hang up, and wait for the process to end."""
        self._control.close()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode:
            log.error(
                "the unpacking process ended with %s: %s", self._process.returncode, self._said()
            )
        self._complaint.close()

    def _said(self) -> str:
        text = os.pread(self._complaint.fileno(), _COMPLAINT_BYTES, 0).decode(errors="replace")
        return " / ".join(text.strip().splitlines()[-3:]) or "it said nothing"


def _command(control_fd: int) -> list[str]:
    import zstandard

    roots = [os.path.abspath(__file__), os.path.abspath(zstandard.__file__)]
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(roots[0]))))
    other_root = os.path.dirname(os.path.dirname(roots[1]))
    isolated = ["-I", "-S", "-B", "-X", "utf8"]
    return [sys.executable, *isolated, "-c", _CODE, package_root, other_root, str(control_fd)]
