"""A seccomp profile with an agent (SCMP_ACT_NOTIFY), given with the docker command line."""

import array
import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from cais.testing.daemon import TestDaemon

ANSWER = 99
RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="ioctls of x86-64")


class Agent(threading.Thread):
    """Answers the first call of each listener it gets with ANSWER."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.states: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()

    def run(self) -> None:
        for _ in range(2):
            connection, _ = self._listener.accept()
            with connection:
                text, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
            self.states.append(json.loads(text))
            threading.Thread(target=_answer, args=(fds[0],), daemon=True).start()
        self._listener.close()


def _answer(listener_fd: int) -> None:
    request = array.array("B", bytes(80))
    try:
        fcntl.ioctl(listener_fd, RECEIVE, request)
        (identity,) = struct.unpack_from("Q", request)
        fcntl.ioctl(listener_fd, SEND, struct.pack("QqiI", identity, 0, -ANSWER, 0))
    except FileNotFoundError:
        pass  # the last process under the filter is gone
    finally:
        os.close(listener_fd)


def notifying(directory: Path) -> str:
    """Return the option of a profile by which an agent there is asked."""
    profile = directory / "profile.json"
    rules = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(directory / "agent.sock"),
        "listenerMetadata": "from docker",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    profile.write_text(json.dumps(rules))
    return f"--security-opt=seccomp={profile}"


def test_run_and_exec_under_an_agent(daemon: TestDaemon, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "agent.sock")
    agent.start()
    option = notifying(tmp_path)
    try:
        daemon.docker("run", "-d", "--name", "told", option, "busybox", "sleep", "60")
        refused = daemon.docker("exec", "told", "mkdir", "/new", check=False)
        assert refused.returncode == 1
        assert os.strerror(ANSWER) in refused.stderr
        pid = int(daemon.docker("inspect", "-f", "{{.State.Pid}}", "told").stdout)
    finally:
        daemon.docker("rm", "-f", "told")
    first, second = agent.states
    assert first["metadata"] == second["metadata"] == "from docker"
    assert (first["pid"], first["state"]["status"]) == (pid, "creating")
    assert (second["state"]["pid"], second["state"]["status"]) == (pid, "running")


def test_run_in_anothers_pid_namespace_under_an_agent(daemon: TestDaemon, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "agent.sock")
    agent.start()
    options = ("--pid=container:neighbour", notifying(tmp_path))
    try:
        daemon.docker("run", "-d", "--name", "neighbour", "busybox", "sleep", "60")
        refused = daemon.docker("run", "--rm", *options, "busybox", "mkdir", "/new", check=False)
        assert refused.returncode == 1
        assert os.strerror(ANSWER) in refused.stderr
    finally:
        daemon.docker("rm", "-f", "neighbour")
    (told,) = agent.states
    assert told["pid"] == told["state"]["pid"] > 0
    assert told["state"]["status"] == "creating"
