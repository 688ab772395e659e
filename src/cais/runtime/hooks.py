"""Hooks: programs of the host that are run at points of a container's life.

    prestart, createRuntime   in the runtime's namespaces, once the root is assembled: a process of
                              the parent's runs them (``hook_runner``)
    createContainer           in the container's namespaces, still with the host's tree: the child
    startContainer            in the container, as the program's user, under its filter: the child
    poststart, poststop       in the runtime's namespaces: a process of the parent's

A hook gets the state on standard input, a file in memory, so that one that never reads stalls
nobody; its output is kept for the error. It gets no other descriptor, and exactly the arguments
and environment that are written.

Imported by the parent, and only for a document with hooks. ``run`` blocks; no import happens in it.

Spec: OCI runtime-spec 1.2, config.md "POSIX-platform Hooks", runtime.md "Lifecycle". The texts of
failures are runc's.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import time
from signal import SIGKILL, pidfd_send_signal, strsignal

from cais.linux import process
from cais.linux.writing import write_all
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from cais.runtime.oci_state import StateFacts
    from cais.spec.runtime import Hook as HookDocument
    from cais.spec.runtime import Hooks as HooksDocument

IN_RUNTIME = ("prestart", "createRuntime")
_STATUS = {
    "prestart": "creating",
    "createRuntime": "creating",
    "createContainer": "creating",
    "startContainer": "created",
    "poststart": "running",
    "poststop": "stopped",
}
_KEPT_BYTES = 2048  # of each output, in an error that must fit into a packet
_CHUNK_BYTES = 4096
_MAX_POLL_MS = 2**31 - 1
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FREE_FD = 16  # where copies wait: above 0, 1 and 2


class Hook:
    """One program to run."""

    __slots__ = ("_path", "_program", "_timeout_s")

    def __init__(self, document: HookDocument) -> None:
        self._path = document["path"]
        args = document.get("args") or [self._path]
        env = document.get("env", ())
        self._program = process.Program([os.fsencode(a) for a in args], [*map(os.fsencode, env)])
        self._timeout_s = document.get("timeout")

    def run(self, state_fd: int) -> None:
        """Run the program to its end.

        Raises:
            LaunchError: it could not be executed, failed, or ran too long and was killed.

        """
        os.lseek(state_fd, 0, os.SEEK_SET)
        try:
            running = _RunningHook(self._program, os.fsencode(self._path), state_fd)
        except OSError as error:  # startContainer: the container's own limits hold by then
            reason = os.strerror(error.errno or 0).lower()
            raise _failure(f"start {self._path}: {reason}", error.errno or 0) from None
        try:
            ending = running.wait(self._timeout_s)
        finally:
            running.close()
        if running.failed_errno:
            reason = os.strerror(running.failed_errno).lower()
            raise _failure(f"fork/exec {self._path}: {reason}", running.failed_errno)
        if ending is None:
            raise _failure(f"hook ran past specified timeout of {self._timeout_s or 0:.1f}s")
        if ending:
            stdout, stderr = running.output
            raise _failure(f"{ending}, stdout: {stdout}, stderr: {stderr}")


class Hooks:
    """The hooks of a container; empty points cost nothing."""

    __slots__ = ("_points", "facts")

    def __init__(self, document: HooksDocument, facts: StateFacts) -> None:
        points: dict[str, list[HookDocument]] = {**document}  # type: ignore[dict-item]
        self._points = {name: [Hook(each) for each in points.get(name, ())] for name in _STATUS}
        self.facts = facts

    @property
    def are_for_creation(self) -> bool:
        """Whether some are run before the container's root is entered."""
        return self.has("createContainer", *IN_RUNTIME)

    def has(self, *points: str) -> bool:
        """Say whether there is a hook at any of the points."""
        return any(self._points[point] for point in points)

    def open_state(self, point: str, pid: int) -> int:
        """Return the state at ``point`` as a file in memory (owned); -1 without a hook there."""
        if not self._points[point]:
            return -1
        try:
            fd = os.memfd_create("state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise _failure(f"state for {point} hooks: {reason}", error.errno or 0) from None
        write_all(fd, json.dumps(self.facts.document(_STATUS[point], pid)).encode())
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)  # what one hook was told holds for the next
        return fd

    def run(self, point: str, state_fd: int, failures: list[str] | None = None) -> None:
        """Run the hooks of a point in their order; closes ``state_fd``.

        Args:
            point: by the specification's name.
            state_fd: of ``open_state``; -1: nothing is to be run.
            failures: when given, the texts of failures go there and the next hook is run.

        Raises:
            LaunchError: a hook failed; those behind it were not run.

        """
        if state_fd < 0:
            return
        try:
            for index, hook in enumerate(self._points[point]):
                try:
                    hook.run(state_fd)
                except LaunchError as error:
                    error.message = f"error running {point} hook #{index}: {error.message}"
                    if failures is None:
                        raise
                    failures.append(error.message)
        finally:
            os.close(state_fd)


class _RunningHook:
    """A hook's process and its output; ``close`` it."""

    __slots__ = ("_outputs", "_pidfd", "_status_fd", "failed_errno")

    def __init__(self, program: process.Program, path: bytes, state_fd: int) -> None:
        self.failed_errno = 0
        self._outputs: dict[int, bytes] = {}
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        _, self._pidfd = process.fork()
        if self._pidfd < 0:
            _become(program, path, [state_fd, *(write_fd for _, write_fd in pipes)])
        for _, write_fd in pipes:
            os.close(write_fd)
        (out_fd, err_fd, self._status_fd) = (read_fd for read_fd, _ in pipes)
        for fd in (out_fd, err_fd):
            os.set_blocking(fd, False)
            self._outputs[fd] = b""

    @property
    def output(self) -> list[str]:
        """What was written to standard output and error, the beginning."""
        return [text.decode(errors="replace") for text in self._outputs.values()]

    def wait(self, timeout_s: int | None) -> str | None:
        """Return how it failed, "" if it did not; None: it was killed after ``timeout_s``."""
        failed = os.read(self._status_fd, 4)  # at its end by execve
        self.failed_errno = int.from_bytes(failed, "little")
        deadline = time.monotonic() + timeout_s if timeout_s else None
        poll = select.poll()
        for fd in (self._pidfd, *self._outputs):
            poll.register(fd, select.POLLIN)
        while (ended := os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)) is None:
            left = None if deadline is None else max(0, deadline - time.monotonic()) * 1000
            events = poll.poll(left and min(left, _MAX_POLL_MS))
            if not events and deadline is not None and time.monotonic() >= deadline:
                self._kill()
                return None
            for fd, _ in events:
                if fd in self._outputs and not self._read(fd):
                    poll.unregister(fd)
        for fd in self._outputs:
            while self._read(fd):
                continue
        if ended.si_code != os.CLD_EXITED:
            return f"signal: {(strsignal(ended.si_status) or str(ended.si_status)).lower()}"
        return f"exit status {ended.si_status}" if ended.si_status else ""

    def close(self) -> None:
        """Close what is open; the process has ended."""
        for fd in (self._pidfd, self._status_fd, *self._outputs):
            os.close(fd)

    def _read(self, fd: int) -> bool:
        """Take what is there; False when there is nothing (more)."""
        try:
            data = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        self._outputs[fd] = (self._outputs[fd] + data)[:_KEPT_BYTES]
        return bool(data)

    def _kill(self) -> None:
        pidfd_send_signal(self._pidfd, SIGKILL)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)


def _become(program: process.Program, path: bytes, fds: list[int]) -> NoReturn:
    """Be the hook: ``fds`` are 0, 1, 2 and where the errno of a failed execve is written."""
    try:
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FREE_FD) for fd in fds]
        _execute(program, path, copies[:3], copies[3])
    finally:
        os._exit(127)


def _execute(program: process.Program, path: bytes, streams: list[int], status_fd: int) -> None:
    try:
        process.set_parent_death_signal(SIGKILL)
        for number, fd in enumerate(streams):
            os.dup2(fd, number, inheritable=True)
        process.close_all_but([0, 1, 2, status_fd])
        program.execute(path)
    except OSError as error:
        os.write(status_fd, (error.errno or errno.EIO).to_bytes(4, "little"))


def _failure(text: str, code: int = 0) -> LaunchError:
    return LaunchError(text, errno=code, step="run hook")
