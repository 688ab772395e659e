"""A runtime without isolation: programs run as plain children. For tests of the shim.

It reads ``process.args``, ``process.env`` and ``process.terminal`` of the documents the real
runtime reads, and honours its contract on descriptors, failures and reaping.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from cais.errors import InvalidArgumentError
from cais.linux import terminal
from cais.linux.cgroups import Cgroup
from cais.linux.process import set_parent_death_signal, start_ticks
from cais.runtime.launch import LaunchError, Running, Stdio


class FakeRuntime:
    """Stands in for the module ``cais.runtime.container``.

    A bundle that holds a file ``oom`` ends OOM-killed; one that holds ``stuck`` never executes its
    program. ``calls`` lists what was asked for besides starting.
    """

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.calls: list[tuple[str, str]] = []

    def begin(
        self,
        container_id: str,
        bundle: str,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> FakeLaunch:
        """As the runtime's."""
        del container_id
        stuck = os.path.exists(os.path.join(bundle, "stuck"))
        return FakeLaunch(_process(os.path.join(bundle, "config.json")), stdio, size, stuck=stuck)

    def begin_exec(
        self,
        container_id: str,
        bundle: str,
        document: str,
        init_pidfd: int,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> FakeLaunch:
        """As the runtime's."""
        del container_id, bundle, init_pidfd
        return FakeLaunch(_process(document), stdio, size, stuck=False)

    def kill(self, container_id: str, bundle: str, init_pidfd: int, number: int) -> None:
        """As the runtime's."""
        del container_id, bundle
        signal.pidfd_send_signal(init_pidfd, number)

    def kill_all(self, container_id: str, bundle: str) -> None:
        """Only noted."""
        del bundle
        self.calls.append(("kill_all", container_id))

    def pause(self, container_id: str, bundle: str) -> None:
        """Only noted."""
        del bundle
        self.calls.append(("pause", container_id))

    def resume(self, container_id: str, bundle: str) -> None:
        """Only noted."""
        del bundle
        self.calls.append(("resume", container_id))

    def update(self, container_id: str, bundle: str, resources: Any) -> None:  # noqa: ANN401
        """Only noted."""
        del bundle, resources
        self.calls.append(("update", container_id))

    def destroy(self, container_id: str, bundle: str) -> bool:
        """As the runtime's."""
        self.calls.append(("destroy", container_id))
        return os.path.exists(os.path.join(bundle, "oom"))

    def begin_poststop(self, container_id: str, directory: str) -> None:
        """As the runtime's for a container without hooks."""
        del container_id, directory

    def cgroup_of(self, container_id: str, bundle: str) -> Cgroup:
        """As the runtime's for a container without control groups."""
        del container_id, bundle
        return FakeCgroup()


class FakeCgroup(Cgroup):
    """A control group without a memory controller."""

    def __init__(self) -> None:
        """Nothing to open."""

    def oom_event_fd(self) -> None:
        """As the real one's."""

    def oom_kills(self) -> int:
        """As the real one's."""
        return 0


class FakeLaunch:
    """A fork whose child says over a pipe why it could not execute the program."""

    def __init__(
        self,
        process: dict[str, Any],
        stdio: Stdio | None,
        size: tuple[int, int] | None,
        *,
        stuck: bool,
    ) -> None:
        """Fork."""
        self._process = process
        self._terminal_fd: int | None = None
        self._report_fd, report_fd = os.pipe2(os.O_CLOEXEC)
        terminal_fd = -1
        if stdio is None:
            self._terminal_fd, terminal_fd = os.openpty()
            if size is not None:
                _set_size(terminal_fd, size)
        parent_pid = os.getpid()
        self.pid: int | None = os.fork()
        if self.pid == 0:
            _child(process, stdio, (terminal_fd, report_fd, parent_pid), stuck=stuck)
        self.pidfd = os.pidfd_open(self.pid)
        os.close(report_fd)
        if terminal_fd >= 0:
            os.close(terminal_fd)

    @property
    def children(self) -> set[int]:
        """The child."""
        return {self.pid or 0}

    def fileno(self) -> int:
        """As the runtime's."""
        return self._report_fd

    def advance(self) -> Running | None:
        """As the runtime's."""
        report = os.read(self._report_fd, 4096).decode()
        if report:
            self.abort()
            raise LaunchError(report, errno=2, kind="not-found")
        os.close(self._report_fd)
        assert self.pid is not None
        return Running(self.pid, self.pidfd, start_ticks(self.pid), self._terminal_fd, [])

    def is_deserted(self) -> bool:
        """No: the pipe ends with the child."""
        return False

    def abort(self) -> None:
        """As the runtime's."""
        if self.pid is None:
            return
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = None
        for fd in (self._report_fd, self.pidfd, self._terminal_fd):
            if fd is not None:
                os.close(fd)


def _process(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            process: dict[str, Any] = json.load(file)["process"]
    except (OSError, ValueError, KeyError) as exc:
        raise InvalidArgumentError(f"{path}: {exc}") from exc
    return process


def _child(
    process: dict[str, Any], stdio: Stdio | None, numbers: tuple[int, int, int], *, stuck: bool
) -> None:
    terminal_fd, report_fd, parent_pid = numbers
    try:
        set_parent_death_signal(signal.SIGKILL)  # a test may kill the shim
        if os.getppid() != parent_pid:  # it has already
            return
        for number in range(1, signal.NSIG):
            if number not in {signal.SIGKILL, signal.SIGSTOP} and number in signal.valid_signals():
                signal.signal(number, signal.SIG_DFL)
        if stdio is None:
            os.login_tty(terminal_fd)
        else:
            os.setsid()
            for target, fd in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
                os.dup2(fd, target)
        os.closerange(3, report_fd)
        os.closerange(report_fd + 1, os.sysconf("SC_OPEN_MAX"))
        while stuck:
            signal.pause()
        args = process["args"]
        os.execvpe(args[0], args, {"PATH": "/usr/bin:/bin", **process.get("env", {})})
    except BaseException as exc:  # noqa: BLE001 - the child must never return into its caller
        os.write(report_fd, f'exec: "{process["args"][0]}": {exc}'.encode())
    finally:
        os._exit(127)


def _set_size(fd: int, size: tuple[int, int]) -> None:
    terminal.set_size(fd, *size)
