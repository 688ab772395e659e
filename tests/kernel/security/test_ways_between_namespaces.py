"""What the runtime is while it is between namespaces: never traceable, never lost in another's."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.linux import namespaces, user_namespaces
from cais.runtime import net_devices, openings
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = str(Path(__file__).parents[3] / "src")
STARTER = """
import os, select, sys
sys.path.insert(0, sys.argv[1])
from cais.runtime import container
bundle, id_ = sys.argv[2:]
launch = container.begin(id_, bundle, stdio=container.Stdio(0, 1, 2))
try:
    while (running := launch.advance()) is None:
        select.select([launch], [], [])
    os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED)
finally:
    container.destroy(id_, bundle)
"""


@pytest.mark.parametrize("twice", [False, True])
def test_nobody_is_traceable_in_a_user_namespace_that_is_joined(
    tmp_path: Path, twice: bool
) -> None:
    """Its root has CAP_SYS_PTRACE over all in it, and may be running already."""

    def body() -> None:
        ids = [(0, 100000, 65536)]
        fd = user_namespaces.make_user_namespace(ids, ids)
        bundle = Bundle(tmp_path)
        subprocess.run(["chown", "-hR", "100000:100000", bundle.rootfs], check=True)
        kinds = ["mount", "network", "uts", "ipc", "time", *(["pid"] if twice else [])]
        bundle.linux["namespaces"] = [
            {"type": "user", "path": f"/proc/{os.getpid()}/fd/{fd}"},
            *({"type": kind} for kind in kinds),
        ]
        bundle.linux["timeOffsets"] = {"boottime": {"secs": 500_000_000}}
        bundle.config["mounts"] = []
        bundle.process["args"] = ["sh", "-c", "echo ran"]
        bundle.save()
        log = tmp_path / "strace"
        command = [sys.executable, "-c", STARTER, SOURCE, str(bundle.path), bundle.id]
        result = subprocess.run(
            ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=prctl,setns,execve", *command],
            check=False,
            capture_output=True,
            timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
        )
        assert result.stdout == b"ran\n", result.stderr.decode()
        os.close(fd)
        calls = log.read_text().split("setns(", 1)[1].splitlines()
        assert any("CLONE_NEWTIME" in call for call in calls)
        assert not [call for call in calls if "PR_SET_DUMPABLE, SUID_DUMP_USER" in call]

    isolated(body, timeout_s=90)


def visit() -> None:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    with openings.Visit([(fd, namespaces.CLONE_NEWNET, "net")]):
        pass


def look_inside() -> None:
    net_devices._look_inside(os.pidfd_open(os.getpid()))


@pytest.mark.parametrize("way", [visit, look_inside])
def test_without_a_way_home_it_ends(way: Callable[[], None]) -> None:
    """To serve on, and make sockets and devices, in a container's network would be worse."""
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _allow_one_way()
            way()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGABRT


def _allow_one_way() -> None:
    there = namespaces.join
    ways = []

    def join(fd: int, flags: int) -> None:
        ways.append(fd)
        if len(ways) > 1:
            raise OSError
        there(fd, flags)

    namespaces.join = join  # in this process, which ends
