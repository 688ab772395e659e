"""The daemon is killed and started again: nothing a reply promised is lost (F-1, F-20, F-35)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cais.testing.daemon import TestDaemon

COUNT = "i=0; while true; do i=$((i+1)); echo line$i; usleep 2000; done"


@pytest.fixture
def daemon(fresh_daemon: Callable[..., TestDaemon]) -> TestDaemon:
    return fresh_daemon()


def state_of(daemon: TestDaemon, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        daemon.docker("inspect", "--format", "{{json .State}}", name).stdout
    )
    return document


def test_containers_survive_and_their_ends_are_known(daemon: TestDaemon, tmp_path: Path) -> None:
    daemon.docker("run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    wait = f"until [ -e {tmp_path}/go ]; do usleep 10000; done; exit 42"
    ending = ("-v", f"{tmp_path}:{tmp_path}", "busybox", "sh", "-c", wait)
    daemon.docker("run", "-d", "--name", "ending", *ending)
    daemon.docker("run", "-d", "--rm", "--name", "gone", *ending)
    daemon.docker("run", "-d", "--name", "frozen", "busybox", "sleep", "1000")
    daemon.docker("pause", "frozen")
    daemon.docker("create", "--name", "fresh", "busybox", "true")
    pid = state_of(daemon, "counter")["Pid"]
    log = Path(daemon.docker("inspect", "-f", "{{.LogPath}}", "counter").stdout.strip())
    daemon.kill()  # containers write and end while nobody is there
    written = log.stat().st_size
    (tmp_path / "go").touch()
    wait_until(lambda: log.stat().st_size > written)
    wait_until(lambda: not any("exit 42" in line for line in daemon.processes().values()))
    daemon.start()
    assert state_of(daemon, "counter")["Pid"] == pid
    ended = state_of(daemon, "ending")
    assert (ended["Status"], ended["ExitCode"], ended["Error"]) == ("exited", 42, "")
    assert state_of(daemon, "frozen")["Status"] == "paused"
    assert state_of(daemon, "fresh")["Status"] == "created"
    names = daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()
    assert sorted(names) == ["counter", "ending", "fresh", "frozen"]
    assert daemon.docker("exec", "counter", "echo", "hello").stdout == "hello\n"
    waiting = subprocess.Popen(
        ["docker", "wait", "counter"], env=daemon.environment, stdout=subprocess.PIPE, text=True
    )
    daemon.docker("stop", "-t", "0", "counter")
    assert waiting.communicate(timeout=PATIENCE_S)[0] == "137\n"
    lines = daemon.docker("logs", "counter").stdout.split()
    assert lines == [f"line{number}" for number in range(1, len(lines) + 1)]
    daemon.docker("rm", "-f", "counter", "ending", "frozen", "fresh")
    daemon.docker("run", "--rm", "--name", "counter", "busybox", "true")


def test_a_second_daemon_on_the_data_root_refuses(daemon: TestDaemon) -> None:
    other = [*daemon.enter_namespaces, *daemon.command(), "--pidfile", "/dev/shm/none.pid"]
    index = other.index("-H") + 1
    other[index] = f"unix://{daemon.directory}/other.sock"
    result = subprocess.run(other, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert result.returncode != 0
    assert f"the data root {daemon.data_root} is in use by another caisd" in result.stderr
    assert daemon.docker("run", "--rm", "busybox", "echo", "unhurt").stdout == "unhurt\n"


def test_a_follower_loses_no_line(daemon: TestDaemon) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done"
    daemon.docker(
        "run",
        "-d",
        "--name",
        "many",
        "--log-opt",
        "max-size=64k",
        "--log-opt",
        "max-file=50",
        "busybox",
        "sh",
        "-c",
        f"sleep 0.3; {script}",
    )
    lines = daemon.docker("logs", "-f", "many").stdout.split()
    assert lines == [str(number) for number in range(1, 20001)]


def left_since(daemon: TestDaemon, before: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return what is left, whatever pids the daemon and its shim have by now."""
    known = {line.partition(" ")[2] for line in before["processes"]}
    left = daemon.left_since(before)
    lines = left.pop("processes", set())
    if more := {line.partition(" ")[2] for line in lines} - known:
        left["processes"] = more
    return left


def test_kill_at_random_moments_leaves_whole_containers_or_none(daemon: TestDaemon) -> None:
    before = daemon.snapshot()
    for delay_s in (0.0, 0.01, 0.02, 0.03, 0.05):
        client = subprocess.Popen(
            ["docker", "run", "--rm", "busybox", "true"],
            env=daemon.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay_s + 0.01)
        daemon.kill()
        client.wait(PATIENCE_S)
        daemon.start()
    listed = daemon.docker("ps", "-aq").stdout.split()
    states = {state_of(daemon, one)["Status"] for one in listed}
    assert states <= {"created"}, "an auto-remove container that ended must be gone"
    if listed:
        daemon.docker("rm", *listed)
    daemon.docker("run", "--rm", "busybox", "true")
    wait_until(lambda: not left_since(daemon, before), lambda: left_since(daemon, before))
    assert list((daemon.data_root / "containers").iterdir()) == []


def test_a_killed_shim_is_replaced_and_its_containers_adopted(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    daemon.docker(
        "run",
        "-d",
        "--name",
        "comes-back",
        "--restart",
        "on-failure",
        "busybox",
        "sh",
        "-c",
        "sleep 1; exit 5",
    )
    pid = state_of(daemon, "stays")["Pid"]
    (shim,) = [pid for pid, line in daemon.processes().items() if "cais.shim" in line]
    daemon.run_inside(["kill", "-9", str(shim)])
    wait_until(lambda: daemon.docker("exec", "stays", "true", check=False).returncode == 0)
    assert state_of(daemon, "stays")["Pid"] == pid
    wait_until(lambda: restarts_of(daemon, "comes-back") > 0)
    daemon.docker("stop", "-t", "0", "stays")
    assert state_of(daemon, "stays")["Status"] == "exited"
    daemon.docker("start", "stays")
    daemon.docker("rm", "-f", "stays", "comes-back")


def restarts_of(daemon: TestDaemon, name: str) -> int:
    return int(daemon.docker("inspect", "--format", "{{.RestartCount}}", name).stdout)
