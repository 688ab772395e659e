"""SECURITY.md F-5: the power goes while images are committed, pushed and pulled.

Daemon and registry (``cais registry serve``) share a data root, an ext4 of its own. Clients commit,
push and pull without a pause; in the middle of it the power is cut (``interruptions``). When it
comes back, what a client had been told is so, nothing else is left, and all of it works again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.testing.cais_registry import CaisRegistry
from cais.testing.daemon import BIN, TestDaemon
from cais.testing.interruptions import make_disk
from cais.testing.isolation import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(500 * PATIENCE)

DISK_BYTES = 192 << 20
PORT = 5083
NAME = f"localhost:{PORT}/team/box"
ROUNDS = 3
"""How many images are committed and pushed before the power goes, at a moment nobody chose."""

CUT = """
from pathlib import Path
from cais.testing.interruptions import cut_power
cut_power(Path({!r}))
"""


class DiskDaemon(TestDaemon):
    """A daemon whose data root is a disk that outlives it."""

    def __init__(self, directory: Path, disk: Path) -> None:
        super().__init__(directory)
        self._disk = disk
        self._is_mounted = False

    def start(self, timeout_s: float = 100) -> None:
        if not self._is_mounted:
            self.data_root.mkdir()
            self.run_inside(["mount", "-o", "loop", str(self._disk), str(self.data_root)])
            self._is_mounted = True
        super().start(timeout_s * PATIENCE)

    def cut_power(self) -> None:
        """Cut it, and end the daemon, which has nothing to say any more."""
        self.run_inside([sys.executable, "-c", CUT.format(str(self.data_root))])
        self.kill()

    def check(self) -> str:
        command = [str(BIN / "cais"), "--data-root", str(self.data_root), "system", "check"]
        return self.run_inside(command, check=False, timeout_s=100 * PATIENCE).stdout


@contextlib.contextmanager
def machine(disk: Path) -> Iterator[DiskDaemon]:
    """A machine with that disk, until the end of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as name,
        DiskDaemon(Path(name), disk) as daemon,
    ):
        yield daemon
    wait_until_free(disk)


def wait_until_free(disk: Path) -> None:
    """Wait until the last process of the machine, and with it the mount, is gone."""
    deadline = time.monotonic() + 100 * PATIENCE
    while subprocess.run(["losetup", "-j", disk], capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline, f"{disk} is still mounted"
        time.sleep(0.05)


def told(daemon: DiskDaemon, *command: str) -> bool:
    """Whether a client was told that it is done."""
    try:
        return daemon.docker(*command, check=False, timeout_s=100 * PATIENCE).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def keep_committing(daemon: DiskDaemon, committed: list[str], is_over: threading.Event) -> None:
    for number in range(1000):
        name = f"{NAME}:{number}"
        change = ["exec", "made", "sh", "-c", f"echo {number} >/n; head -c 300000 /dev/urandom >/r"]
        # Not paused: on cgroup v1 a frozen container would outlive this machine.
        if (
            is_over.is_set()
            or not told(daemon, *change)
            or not told(daemon, "commit", "--pause=false", "made", name)
        ):
            return
        committed.append(name)


def keep_pushing(
    daemon: DiskDaemon,
    committed: list[str],
    pushed: list[str],
    is_over: threading.Event,
    may_cut: threading.Event,
) -> None:
    while not is_over.wait(0.01):
        for name in committed[len(pushed) :]:
            if not told(daemon, "push", name):
                return
            pushed.append(name)
            if len(pushed) == ROUNDS:
                may_cut.set()


def keep_pulling(daemon: DiskDaemon, is_over: threading.Event) -> None:
    while not is_over.is_set() and told(daemon, "rmi", "-f", f"{NAME}:base"):
        if not told(daemon, "pull", f"{NAME}:base"):
            return


def test_the_power_goes_between_commits_pushes_and_pulls(
    tmp_path: Path, busybox_tar: bytes
) -> None:
    disk = tmp_path / "disk"
    make_disk(disk, DISK_BYTES)
    committed: list[str] = []
    pushed: list[str] = []
    is_over, may_cut = threading.Event(), threading.Event()
    with machine(disk) as daemon, CaisRegistry(daemon, daemon.data_root, port=PORT) as registry:
        daemon.docker("load", stdin=busybox_tar)
        daemon.docker("run", "-d", "--name", "made", "busybox", "sleep", "3600")
        daemon.docker("commit", "made", f"{NAME}:base")
        daemon.docker("push", f"{NAME}:base")
        with ThreadPoolExecutor(3) as threads:
            work = [
                threads.submit(keep_committing, daemon, committed, is_over),
                threads.submit(keep_pushing, daemon, committed, pushed, is_over, may_cut),
                threads.submit(keep_pulling, daemon, is_over),
            ]
            try:
                assert may_cut.wait(300 * PATIENCE)
                daemon.cut_power()
                registry.end()
            finally:
                is_over.set()
            for each in work:
                each.result()
    with machine(disk) as daemon:
        assert_kept(daemon, committed, pushed)


def assert_kept(daemon: DiskDaemon, committed: list[str], pushed: list[str]) -> None:
    assert len(pushed) >= ROUNDS
    for name in committed:
        assert number_in(daemon, name) == name.rpartition(":")[2]
    with CaisRegistry(daemon, daemon.data_root, port=PORT):
        for name in pushed:
            daemon.docker("rmi", name)
            daemon.docker("pull", name)
            assert number_in(daemon, name) == name.rpartition(":")[2]
        daemon.docker("push", committed[-1])
    assert os.listdir(daemon.data_root) == []  # it is mounted in the machine alone
    daemon.docker("rm", "-f", "made")
    daemon.stop()
    deadline = time.monotonic() + 100 * PATIENCE
    while (said := daemon.check()) != f"{daemon.data_root}: no problems\n":
        assert time.monotonic() < deadline, said
        daemon.start()  # it deletes in the background, and may have been stopped meanwhile
        daemon.stop()


def number_in(daemon: DiskDaemon, name: str) -> str:
    return daemon.docker("run", "--rm", name, "cat", "/n", timeout_s=100 * PATIENCE).stdout.strip()
