"""A5: an exec's terminal in a container that has made its /dev something else.

The terminal is one of the container's devpts, opened through its multiplexer and never by the
name of either; where there is no devpts any more the exec is refused, and waits for nothing.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cais.runtime.launch import LaunchError
from cais.testing.bundles import DOCKER_CAPABILITIES, Bundle, Capture, end, read_terminal
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

WITH_DEVPTS = [
    "rm /dev/ptmx",
    "rm /dev/ptmx; mkfifo /dev/ptmx",
    "rm /dev/ptmx; ln -s null /dev/ptmx",
    "rm /dev/ptmx; ln -s /proc/1/root /dev/ptmx",
    "mount -t devpts -o newinstance,ptmxmode=000 x /dev/pts",
    "mount -t tmpfs x /proc",
]
WITHOUT = [
    "umount /dev/pts; mkfifo /dev/pts/ptmx",
    "mount -t tmpfs x /dev/pts; mknod /dev/pts/ptmx c 5 2; mkdir /dev/pts/pts",
    "mount -t tmpfs x /dev; ln -s /proc/self/fd /dev/pts",
    "mount -t tmpfs x /dev; mkdir /dev/pts; mount -t proc x /dev/pts",
]


def terminal_of_an_exec(tmp_path: Path, script: str) -> str:
    """Return what an exec with a terminal writes after ``script`` has been run inside."""
    bundle = Bundle(tmp_path)
    capabilities = [*DOCKER_CAPABILITIES, "CAP_SYS_ADMIN"]
    sets = ("bounding", "permitted", "effective")
    bundle.process["capabilities"] = dict.fromkeys(sets, capabilities)
    with Capture() as capture:
        words = ("sh", "-c", f"{script} && echo done; exec sleep 1000")
        init = bundle.start(*words, stdio=capture.stdio)
        try:
            wait_until(lambda: capture.result(0).stdout, capture.result(0).stderr)
            running = bundle.start_exec(init, "tty", stdio=None)
            assert running.terminal_fd is not None
            text = read_terminal(running.terminal_fd)
            assert end(running) == 0
        finally:
            os.kill(init.pid, signal.SIGKILL)
            end(init)
            bundle.destroy()
    return text


@pytest.mark.parametrize("script", WITH_DEVPTS)
def test_cve_2025_52565_it_is_one_of_the_devpts(tmp_path: Path, script: str) -> None:
    def body() -> None:
        assert terminal_of_an_exec(tmp_path, script) == "/dev/pts/0\r\n"

    isolated(body)


@pytest.mark.parametrize("script", WITHOUT)
def test_cve_2025_52565_without_a_devpts_there_is_none(tmp_path: Path, script: str) -> None:
    def body() -> None:
        with pytest.raises(LaunchError, match="cannot open a terminal in the container: "):
            terminal_of_an_exec(tmp_path, script)

    isolated(body)
