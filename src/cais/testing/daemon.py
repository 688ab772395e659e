"""Start ``caisd`` in namespaces of its own, drive it with real clients, and see what it leaves.

```
with TestDaemon(tmp_path) as daemon:
    daemon.docker("run", "--rm", "busybox", "true")
    before = daemon.snapshot()
    ...
    assert daemon.left_since(before) == {}
```
The daemon and everything it starts live in a mount, network and pid namespace whose first process
is ``cais.testing.holder``: when that one is killed, so is whatever the daemon left behind.
Clients run outside and reach the daemon through its unix socket.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from cais.testing.isolation import (
    CGROUP_ROOT,
    PATIENCE,
    groups_below,
    remove_cgroups,
    thaw_cgroups,
)
from cais.testing.namespaces import Namespaces

BIN = Path(sys.executable).parent


class DaemonDiedError(AssertionError):
    """``caisd`` did not come up or went away; the text holds the end of its log."""


class TestDaemon:
    """A ``caisd`` with its own roots; a context manager. Needs root.

    Every ``timeout_s`` is for a machine of usual speed: ``PATIENCE`` multiplies it.

    Args:
        directory: an existing directory for the roots, the socket and the log; not removed.
        arguments: further arguments of ``caisd``.

    """

    __test__ = False  # pytest: not a class of tests
    counts_spares = False  # in ``processes``

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.data_root = directory / "data"
        self.exec_root = directory / "exec"
        self.socket_path = directory / "caisd.sock"
        self.log_path = directory / "caisd.log"
        self.arguments = arguments
        self.cgroup_parent = f"cais-test-{os.getpid()}-{secrets.token_hex(3)}"
        self.namespaces = Namespaces()
        self._daemon: subprocess.Popen[bytes] | None = None

    # Life

    def __enter__(self) -> Self:
        self._hold_namespaces()
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, timeout_s: float = 60) -> None:
        """Start ``caisd`` (again) on the same roots and wait until it answers."""
        with self.log_path.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.enter_namespaces, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_it_answers(time.monotonic() + timeout_s * PATIENCE)

    def command(self) -> list[str]:
        """Return the daemon's command line."""
        return [
            str(BIN / "caisd"),
            *("-H", self.host),
            *("--data-root", str(self.data_root)),
            *("--exec-root", str(self.exec_root)),
            *("--pidfile", str(self.directory / "caisd.pid")),
            *("--cgroup-parent", f"/{self.cgroup_parent}"),
            *self.arguments,
        ]

    def stop(self, timeout_s: float = 60) -> int:
        """Stop ``caisd`` with SIGTERM; its shim and containers stay. Return the exit status."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> None:
        """End ``caisd`` with SIGKILL; its shim and containers stay."""
        self._end(signal.SIGKILL, 60)

    def restart(self) -> None:
        """Stop and start ``caisd``."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the daemon and every process of its namespaces; idempotent."""
        if self._daemon is not None and self._daemon.poll() is None:
            try:
                self.stop(timeout_s=10)
            except subprocess.TimeoutExpired:
                self.kill()
        thaw_cgroups(self.cgroup_parent)
        self.namespaces.close()
        self._remove_cgroups()

    # Clients

    @property
    def host(self) -> str:
        """The daemon's address as ``DOCKER_HOST`` spells it."""
        return f"unix://{self.socket_path}"

    @property
    def environment(self) -> dict[str, str]:
        """An environment in which clients find this daemon, and no configuration of the user's."""
        return {
            **os.environ,
            "DOCKER_HOST": self.host,
            "CAIS_HOST": self.host,
            "DOCKER_CONFIG": str(self.directory / "docker-config"),
            "DOCKER_CLI_HINTS": "false",
        }

    def docker(
        self, *arguments: str, check: bool = True, stdin: str | bytes = b"", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI; with ``check`` a failure raises with everything it printed."""
        return self.run_client(["docker", *arguments], stdin, timeout_s, check=check)

    def cais(
        self, *arguments: str, check: bool = True, stdin: str | bytes = b"", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run our own command line, as :meth:`docker`."""
        return self.run_client([str(BIN / "cais"), *arguments], stdin, timeout_s, check=check)

    def run_inside(
        self, command: Sequence[str], *, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the daemon's namespaces: what the daemon's host looks like."""
        return self.run_client([*self.enter_namespaces, *command], b"", timeout_s, check=check)

    def run_client(
        self,
        command: Sequence[str],
        stdin: str | bytes = b"",
        timeout_s: float = 60,
        *,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run any client in :attr:`environment`, as :meth:`docker`."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            env=self.environment,
            timeout=timeout_s * PATIENCE,
            check=False,
        )
        result = subprocess.CompletedProcess(
            list(command), done.returncode, _text(done.stdout), _text(done.stderr)
        )
        if check and result.returncode:
            raise AssertionError(
                f"{command} ended with {result.returncode}\n"
                f"stdout: {result.stdout[-4000:]}\nstderr: {result.stderr[-4000:]}\n"
                f"caisd: {self.log_tail()}"
            )
        return result

    # What there is

    @property
    def pid(self) -> int:
        """The daemon's pid, as seen from outside its namespaces."""
        assert self._daemon is not None
        task = f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children"
        return int(Path(task).read_text().split()[0])

    def processes(self) -> dict[int, str]:
        """Return pid (inside) to command line of everything but the holder and the shim's spares.

        Spares come and go after starts.
        """
        proc = Path(f"/proc/{self.namespaces.pid}/root/proc")
        found = {}
        for entry in proc.iterdir():
            if entry.name.isdigit() and entry.name != "1":
                try:
                    line = (entry / "cmdline").read_bytes()
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    is_spare = (entry / "comm").read_text() == "cais-spare\n"
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if is_spare and not self.counts_spares:
                    continue
                name = "zombie" if state == "Z" else _text(line.replace(b"\0", b" ")).strip()
                found[int(entry.name)] = name
        return found

    def snapshot(self) -> Mapping[str, set[str]]:
        """Return what containers could leave on the host: compare before and after.

        Ready-made network namespaces are kept in a pool that fills by itself: not counted.
        """
        pinned = str(self.exec_root / "netns")
        lines = Path(f"/proc/{self.namespaces.pid}/mountinfo").read_text().splitlines()
        mounts = {line.split(" ", 1)[1] for line in lines if f" {pinned}" not in line}
        return {
            "mounts": {mount.split(" ", 1)[1] for mount in mounts},
            "processes": {f"{pid} {name}" for pid, name in self.processes().items()},
            "cgroups": {str(path) for path in self.cgroups()},
            "bundles": set(_listdir(self.exec_root / "bundles")),
            "containers": set(_listdir(self.data_root / "containers")),
        }

    def left_since(self, before: Mapping[str, set[str]]) -> dict[str, set[str]]:
        """Return what there is now and was not in a snapshot, of each kind that has any.

        What went away does not count: the host's own mounts leave this namespace, too, when
        somebody outside removes the directories they are on.
        """
        now = self.snapshot()
        return {kind: more for kind in now if (more := now[kind] - before[kind])}

    def cgroups(self) -> set[Path]:
        """Return the cgroup directories of this daemon's containers, in every hierarchy."""
        parents = [
            *CGROUP_ROOT.glob(self.cgroup_parent),
            *CGROUP_ROOT.glob(f"*/{self.cgroup_parent}"),
        ]
        return {path for parent in parents for path in groups_below(parent)}

    def descriptor_count(self, pid: int | None = None) -> int:
        """Return how many descriptors a process (the daemon if none is named) has open."""
        return len(os.listdir(f"/proc/{pid or self.pid}/fd"))

    def log_tail(self, size_bytes: int = 6000) -> str:
        """Return the end of what the daemon wrote."""
        if not self.log_path.exists():
            return ""
        return _text(self.log_path.read_bytes()[-size_bytes:])

    # The namespaces

    def _hold_namespaces(self) -> None:
        self.namespaces.__enter__()

    @property
    def enter_namespaces(self) -> list[str]:
        """The start of a command line that runs the rest in the daemon's namespaces."""
        return self.namespaces.enter

    def _wait_until_it_answers(self, deadline: float) -> None:
        assert self._daemon is not None
        while not _answers(self.socket_path):
            if self._daemon.poll() is not None:
                raise DaemonDiedError(
                    f"caisd ended with {self._daemon.returncode}: {self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise DaemonDiedError(f"caisd does not answer: {self.log_tail()}")
            time.sleep(0.01)

    def _end(self, number: int, timeout_s: float) -> int:
        assert self._daemon is not None
        if self._daemon.poll() is None:
            os.kill(self.pid, number)
        return self._daemon.wait(timeout_s * PATIENCE)

    def _remove_cgroups(self) -> None:
        remove_cgroups(self.cgroup_parent)


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: cais\r\nConnection: close\r\n\r\n")
            return b" 200 " in client.recv(4096)
    except OSError:
        return False


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _listdir(path: Path) -> list[str]:
    return os.listdir(path) if path.is_dir() else []
