"""SECURITY.md F-7 and F-8: a data root without a free block, or without a free inode.

Each operation says so or works; what runs goes on, what is to be removed can be; nothing is left of
what failed; and with room everything works again, without a restart.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.testing.daemon import BIN, TestDaemon
from cais.testing.image_store import docker_archive
from cais.testing.raw_tar import Member, tar

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_SPACE = "no space left on device"
LARGE = docker_archive([tar([Member("large", b"l" * (5 << 20))])], ["large:latest"])
HUGE = docker_archive([tar([Member("huge", b"h" * (20 << 20))])], ["huge:latest"])
MANY = docker_archive(
    [tar([Member(f"file{number}", b"") for number in range(3000)])], ["many:latest"]
)


class SmallDaemon(TestDaemon):
    """A daemon whose data root is a file system of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory)
        self._disk = directory / "disk"
        self._options = options

    def start(self, timeout_s: float = 100) -> None:
        if not self._disk.exists():
            command = ["mkfs.ext4", "-q", "-b", "4096", "-m", "0", *self._options]
            subprocess.run([*command, self._disk, "32M"], check=True)
            self.data_root.mkdir()
            self.run_inside(["mount", "-o", "loop", str(self._disk), str(self.data_root)])
        super().start(timeout_s)

    def use_up_blocks(self) -> None:
        """Leave not a block: the last ones are taken one by one."""
        for size in ("64k", "4k"):
            script = f"dd if=/dev/zero bs={size} >>{self.data_root}/ballast 2>/dev/null; true"
            self.run_inside(["sh", "-c", script])
        assert self.free("avail") == 0

    def use_up_inodes(self) -> None:
        loop = 'i=0; while : 2>/dev/null >"$i"; do i=$((i+1)); done; true'
        script = f"mkdir {self.data_root}/ballast; cd {self.data_root}/ballast; {loop}"
        self.run_inside(["bash", "-c", script])
        assert self.free("iavail") == 0

    def make_room(self) -> None:
        self.run_inside(["rm", "-r", str(self.data_root / "ballast")])

    def free(self, what: str) -> int:
        said = self.run_inside(["df", f"--output={what}", str(self.data_root)]).stdout
        return int(said.split()[1])

    def check(self) -> None:
        """Stop the daemon: all there is is whole, and somebody's."""
        command = [str(BIN / "cais"), "--data-root", str(self.data_root), "system", "check"]
        self.stop()
        said = self.run_inside(command, check=False)
        assert said.returncode == 0, said.stdout


@contextmanager
def small_daemon(busybox_tar: bytes, *options: str) -> Iterator[SmallDaemon]:
    with (
        tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as name,
        SmallDaemon(Path(name), *options) as daemon,
    ):
        daemon.docker("load", stdin=busybox_tar)
        daemon.docker("run", "-d", "--name", "runs", "busybox", "sleep", "600")
        daemon.docker("exec", "runs", "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >/kept")
        daemon.docker("create", "--name", "made", "busybox", "true")
        yield daemon


def refused(daemon: SmallDaemon, *command: str, stdin: bytes = b"", text: str = NO_SPACE) -> None:
    done = daemon.docker(*command, stdin=stdin, check=False)
    assert done.returncode != 0
    assert text in (done.stdout + done.stderr).lower(), done.stdout + done.stderr


def refused_commit(daemon: SmallDaemon) -> None:
    """Nothing of the attempt is left, and the container, which was paused, goes on."""
    ingest = daemon.data_root / "content/ingest"
    refused(daemon, "commit", "runs", "kept:1")
    assert daemon.run_inside(["ls", str(ingest)]).stdout == ""
    assert daemon.docker("images", "-q", "kept").stdout == ""
    assert daemon.docker("inspect", "-f", "{{.State.Status}}", "runs").stdout == "running\n"


def test_a_disk_without_a_block(busybox_tar: bytes) -> None:
    with small_daemon(busybox_tar) as daemon:
        refused(daemon, "load", stdin=HUGE)  # fills it by itself, and frees it again
        assert daemon.free("avail") > 8 * 1024
        daemon.use_up_blocks()
        refused(daemon, "load", stdin=LARGE)
        refused(daemon, "run", "--rm", "busybox", "sh", "-c", "echo x >/x")
        refused_commit(daemon)
        assert daemon.docker("exec", "runs", "echo", "here").stdout == "here\n"
        names = daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()
        assert {"runs", "made"} <= set(names)
        daemon.docker("rm", "made")
        daemon.docker("stop", "-t", "0", "runs")
        daemon.docker("rm", "runs")
        daemon.docker("system", "prune", "-af")
        assert daemon.docker("images", "-q").stdout == ""
        daemon.make_room()
        daemon.docker("load", stdin=LARGE)
        daemon.docker("load", stdin=busybox_tar)
        assert daemon.docker("run", "--rm", "busybox", "echo", "again").stdout == "again\n"
        daemon.check()


def test_a_disk_without_an_inode(busybox_tar: bytes) -> None:
    with small_daemon(busybox_tar, "-N", "2048") as daemon:
        refused(daemon, "load", stdin=MANY)
        daemon.use_up_inodes()
        refused(daemon, "load", stdin=LARGE, text=f"{NO_SPACE}: no inodes")
        refused_commit(daemon)
        assert daemon.docker("exec", "runs", "echo", "here").stdout == "here\n"
        daemon.make_room()
        daemon.docker("commit", "runs", "kept:1")
        kept = daemon.docker("run", "--rm", "kept:1", "wc", "-c", "/kept").stdout
        assert kept == "100000 /kept\n"
        daemon.docker("rm", "-f", "runs", "made")
        daemon.docker("load", stdin=LARGE)
        assert daemon.docker("run", "--rm", "busybox", "echo", "again").stdout == "again\n"
        daemon.check()


@pytest.mark.parametrize("when", ["stopped", "killed"])
def test_a_daemon_starts_on_a_full_disk(busybox_tar: bytes, when: str) -> None:
    with small_daemon(busybox_tar) as daemon:
        daemon.use_up_blocks()
        daemon.stop() if when == "stopped" else daemon.kill()
        daemon.start()
        assert daemon.docker("exec", "runs", "echo", "here").stdout == "here\n"
        daemon.docker("rm", "-f", "runs", "made")
        daemon.docker("rmi", "busybox")
        daemon.make_room()
        daemon.docker("load", stdin=busybox_tar)
        daemon.docker("run", "--rm", "busybox", "true")
        daemon.check()
