"""Checkpoints of the engine's own containers, on a kernel on which CRIU works."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from host_daemon import Host, running

from cais.errors import CaisError
from cais.linux.cgroups import detect, open_cgroup
from cais.linux.cgroups.systemd_manager import is_running
from cais.testing.criu import why_not
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
needs_systemd = pytest.mark.skipif(
    not is_running() or detect().version != 2, reason="needs systemd and cgroup v2 alone"
)
COUNT = "n=0; while :; do n=$((n + 1)); echo $n; echo $n >/count; sleep 0.1; done"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with running(Host(tmp_path, "--experimental")) as host:
        yield host


@pytest.fixture
def systemd_host(tmp_path: Path) -> Iterator[Host]:
    flags = ("--experimental", "--exec-opt", "native.cgroupdriver=systemd")
    with running(Host(tmp_path, *flags, "--cgroup-parent", "cais.slice")) as host:
        yield host


def state(host: Host) -> dict[str, object]:
    found: dict[str, object] = json.loads(host("inspect", "box"))[0]["State"]
    return found


def count(host: Host) -> int:
    return int(host("exec", "box", "cat", "/count") or 0)


def test_a_container_goes_on_where_it_was(host: Host) -> None:
    goes_on(host)


@needs_systemd
def test_a_container_goes_on_in_a_scope_of_systemd_s(systemd_host: Host) -> None:
    goes_on(systemd_host, group="cais.slice:cais:{id}")


def goes_on(host: Host, group: str = "cais/{id}") -> None:
    limits = ("-m", "64m", "--network", "none", "--hostname", "here")
    host("run", "-d", "--name", "box", *limits, "busybox", "sh", "-c", COUNT)
    wait_until(lambda: count(host) > 2, "it does not count")
    host.client.post(
        "/containers/box/checkpoints", document={"CheckpointID": "one", "Exit": True}
    ).close()
    wait_until(lambda: state(host)["Status"] == "exited", "it has not ended")
    reached = int(host("logs", "--tail", "1", "box"))
    with host.client.get("/containers/box/checkpoints") as answer:
        assert answer.json() == [{"Name": "one"}]

    host.client.post("/containers/box/start", {"checkpoint": "one"}).close()
    wait_until(lambda: count(host) > reached, "it does not go on")
    numbers = [int(line) for line in host("logs", "box").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))  # a new start would begin with 1
    assert host("exec", "box", "hostname") == "here"
    facts = json.loads(host("inspect", "box"))[0]
    place = open_cgroup(detect(), group.format(id=facts["Id"]))
    assert facts["State"]["Pid"] in place.pids()
    assert place.stats()["memory"]["limit"] == 64 << 20
    assert "127.0.0.1" in host("exec", "box", "cat", "/etc/hosts")
    # What it can write to is its own still: in memory, and not the engine's file.
    assert " /etc/hosts " in host("exec", "box", "grep", "tmpfs", "/proc/mounts")
    host("stop", "-t", "1", "box")
    assert state(host)["ExitCode"] == 137
    assert list((host.directory / "exec/runtimes/cais/state").iterdir()) == []


@pytest.mark.parametrize(("flag", "what"), [("--tty", "a terminal"), ("--init", "--init")])
def test_what_cannot_be_restored_is_not_written(host: Host, flag: str, what: str) -> None:
    host("run", "-d", flag, "--name", "box", "--network", "none", "busybox", "sleep", "600")
    with pytest.raises(CaisError, match=f"a container with {what} cannot be restored"):
        host.client.post("/containers/box/checkpoints", document={"CheckpointID": "one"})
    assert state(host)["Running"] is True
    with host.client.get("/containers/box/checkpoints") as answer:
        assert answer.json() == []
