"""Checkpoints of the engine's own containers, on a kernel on which CRIU works."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from host_daemon import PATIENCE_S, Host, running

from cais.errors import CaisError
from cais.testing.criu import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(600),  # in an emulated machine
]
COUNT = "n=0; while :; do n=$((n + 1)); echo $n; echo $n >/count; sleep 0.1; done"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with running(Host(tmp_path, "--experimental")) as host:
        yield host


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def state(host: Host) -> dict[str, object]:
    found: dict[str, object] = json.loads(host("inspect", "box"))[0]["State"]
    return found


def count(host: Host) -> int:
    return int(host("exec", "box", "cat", "/count") or 0)


def test_a_container_goes_on_where_it_was(host: Host) -> None:
    limits = ("-m", "64m", "--network", "none", "--hostname", "here")
    host("run", "-d", "--name", "box", *limits, "busybox", "sh", "-c", COUNT)
    until(lambda: count(host) > 2, "it does not count")
    host.client.post(
        "/containers/box/checkpoints", document={"CheckpointID": "one", "Exit": True}
    ).close()
    until(lambda: state(host)["Status"] == "exited", "it has not ended")
    reached = int(host("logs", "--tail", "1", "box"))
    with host.client.get("/containers/box/checkpoints") as answer:
        assert answer.json() == [{"Name": "one"}]

    host.client.post("/containers/box/start", {"checkpoint": "one"}).close()
    until(lambda: count(host) > reached, "it does not go on")
    numbers = [int(line) for line in host("logs", "box").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))  # a new start would begin with 1
    assert host("exec", "box", "hostname") == "here"
    assert "127.0.0.1" in host("exec", "box", "cat", "/etc/hosts")
    # What it can write to is its own still: in memory, and not the engine's file.
    assert " /etc/hosts " in host("exec", "box", "grep", "tmpfs", "/proc/mounts")
    host("stop", "-t", "1", "box")
    assert state(host)["ExitCode"] == 137
    assert list((host.directory / "exec/runtimes/cais/state").iterdir()) == []


def test_what_cannot_be_restored_is_not_written(host: Host) -> None:
    host("run", "-d", "-t", "--name", "box", "--network", "none", "busybox", "sleep", "600")
    with pytest.raises(CaisError, match="a container with a terminal cannot be restored"):
        host.client.post("/containers/box/checkpoints", document={"CheckpointID": "one"})
    assert state(host)["Running"] is True
