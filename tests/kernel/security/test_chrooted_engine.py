"""An engine that runs in a chroot (a rescue system, a build environment) still contains.

The mount namespace of such a container is a copy of everything, also of what lies outside the
engine's chroot. Unless the container's root replaces the namespace's own root, an exec begins
outside, and so does whoever leaves a chroot of his own by ``..``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from security_daemon import connected, public_directory, running

from cais.linux import mount, namespaces
from cais.testing.bundles import Bundle, Capture, end, read_terminal
from cais.testing.daemon import TestDaemon
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.testing.bundles import Running

CONTENT = {"bin", "dev", "etc", "proc", "sys"}


@contextmanager
def chrooted(root: Path, *, mounted: bool) -> Iterator[None]:
    """Be in a small root of the host's directories; a mount of its own or a plain directory."""
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
    for name in ("proc", "sys", "dev", "bin", "work"):
        (root / name).mkdir()
        source = root.parent if name == "work" else f"/{name}"
        subprocess.run(["mount", "--rbind", source, root / name], check=True)
    subprocess.run(["mount", "--make-rshared", "/"], check=True)  # as systemd leaves it
    outside_fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.chroot(root)
    os.chdir("/")
    try:
        yield
    finally:
        os.fchdir(outside_fd)
        os.chroot(".")
        os.close(outside_fd)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        names = [root] if mounted else [root / name for name in os.listdir(root)]
        for name in names:
            mount.unmount(str(name), detach=True)


def started(bundle: Bundle) -> Running:
    with Capture() as capture:
        return bundle.start("sleep", "60", stdio=capture.stdio)


def root_of_namespace(init: Running) -> set[str]:
    """List what somebody finds who enters the container's mount namespace at its root."""
    read_fd, write_fd = os.pipe()
    if (pid := os.fork()) == 0:
        namespaces.join(init.pidfd, namespaces.CLONE_NEWNS)
        os.write(write_fd, " ".join(os.listdir("/")).encode())
        os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    with open(read_fd, "rb") as file:
        return set(file.read().decode().split())


@pytest.mark.parametrize("mounted", [True, False])
def test_nothing_of_the_host_is_in_the_container_s_mount_namespace(
    tmp_path: Path, *, mounted: bool
) -> None:
    def body() -> None:
        for name in ("warm", "bundle", "root"):
            (tmp_path / name).mkdir()
        Bundle(tmp_path / "warm").run("true")  # imports what the small root does not have
        with chrooted(tmp_path / "root", mounted=mounted):
            bundle = Bundle(type(tmp_path)("/work/bundle"))
            init = started(bundle)
            try:
                assert root_of_namespace(init) == CONTENT
                assert set(bundle.execute(init, "ls", "/").stdout.split()) == CONTENT
                terminal = bundle.start_exec(init, "ls", "-d", "/work", stdio=None)
                assert terminal.terminal_fd is not None
                assert "No such file" in read_terminal(terminal.terminal_fd)
                end(terminal)
            finally:
                signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
                end(init)
                bundle.destroy()

    isolated(body)


class ChrootedDaemon(TestDaemon):
    """A daemon, and so its shim, in a chroot: the whole tree mounted at another place."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.root = directory / "root"

    def command(self) -> list[str]:
        """Return the command line; the first one makes the place."""
        if not self.root.exists():
            self.root.mkdir()
            self.run_inside(["mount", "--rbind", "/", str(self.root)])
        return ["chroot", str(self.root), *super().command()]


def test_run_exec_health_check_and_top_of_a_daemon_in_a_chroot(busybox_tar: bytes) -> None:
    health = {"test": ["CMD-SHELL", "ls / >/seen"], "interval": 10**8}
    with (
        public_directory() as directory,
        ChrootedDaemon(directory) as daemon,
        connected(daemon) as client,
    ):
        client.images.load(busybox_tar)
        with running(client, "sh", "-c", "ls /; sleep 60", healthcheck=health) as container:
            inside = set(container.exec_run(["ls", "/"])[1].decode().split()) - {"seen"}
            assert "work" not in inside
            assert "bin" in inside
            while (seen := container.exec_run(["cat", "/seen"]))[0] or not seen[1]:
                time.sleep(0.02)
            assert set(seen[1].decode().split()) - {"seen"} == inside
            assert set(container.logs().decode().split()) - {"seen"} == inside
            # Of a busybox that runs its applets without execve, the shell's own line.
            assert any(row[-1].endswith("sleep 60") for row in container.top()["Processes"])
            container.restart(timeout=0)
            assert container.exec_run(["ls", "-d", str(directory)])[0] != 0
