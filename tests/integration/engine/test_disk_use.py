"""What containers cost on disk beyond the image they share."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from cais.testing.daemon import TestDaemon
from cais.testing.waiting import PATIENCE_S

COUNT = 40
LIMIT_BYTES = 3 * 1024
"""For each container; the aim is 5 MB for a thousand of them."""

_LOG_OF_COMMITS = ("-wal", "-shm")
"""Of a database: up to half a megabyte however many containers there are."""

_FIRST = "first"
_OUTPUTS = {"file": [[], ["once"]], "mode": [["755"], ["711"]]}


def test_containers_that_do_not_run_cost_rows(fresh_daemon: Callable[..., TestDaemon]) -> None:
    daemon = fresh_daemon()
    daemon.docker("create", "--name", _FIRST, "busybox", "true")
    daemon.docker("start", "-a", _FIRST)
    names = [f"made{index}" for index in range(COUNT)]
    daemon.restart()  # which empties the logs of commits into their databases, as below
    before = settled(daemon, names=0)
    for name in names:
        daemon.docker("create", "--name", name, "busybox", "true")
    created = settled(daemon, names=0)
    assert set(created) == set(before)
    daemon.docker("start", *names)
    daemon.docker("wait", *names)
    ended = settled(daemon, names=0)
    assert set(ended) == set(before)
    assert os.listdir(daemon.exec_root / "bundles") == []
    daemon.restart()
    ended = settled(daemon, names=0)
    assert set(ended) == set(before)
    assert sum(ended.values()) - sum(before.values()) < COUNT * LIMIT_BYTES
    daemon.docker("rm", *names, _FIRST)
    daemon.docker("rmi", "busybox")
    assert not {path for path in settled(daemon, names=0) if path.startswith("snapshots/work/")}
    assert not [name for name in os.listdir(daemon.data_root / "snapshots") if name.isdigit()]


def test_one_that_runs_and_says_nothing_costs_overlayfs_its_directories(
    fresh_daemon: Callable[..., TestDaemon],
) -> None:
    daemon = fresh_daemon()
    daemon.docker("create", "--name", _FIRST, "busybox", "sleep", "100")
    before = set(used(daemon.data_root))
    daemon.docker("start", _FIRST)
    made = set(used(daemon.data_root)) - before
    assert sorted(re.sub(r"\d+", "<n>", path) for path in made) == [
        "snapshots/<n>",
        "snapshots/work/<n>",
        "snapshots/work/<n>/work",
    ]
    daemon.docker("rm", "-f", _FIRST)


def test_what_a_container_wrote_is_there_at_its_next_start(
    fresh_daemon: Callable[..., TestDaemon],
) -> None:
    daemon = fresh_daemon()
    for number, (name, command) in enumerate(
        (("file", "cat /kept; echo once >/kept"), ("mode", "stat -c %a /; chmod 711 /")), start=1
    ):
        daemon.docker("create", "--name", name, "busybox", "sh", "-c", f"echo; {command}")
        outputs = []
        for _ in range(2):
            outputs.append(daemon.docker("start", "-a", name, check=False).stdout.split())
            settled(daemon, names=number)
        assert outputs == _OUTPUTS[name]


def settled(daemon: TestDaemon, *, names: int) -> dict[str, int]:
    """Return paths and bytes of the data root once ended containers were tidied up.

    Args:
        daemon: whose.
        names: how many containers keep a directory of their own.

    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = used(daemon.data_root)
        logs = [path for path in found if path.startswith("containers/") and path.count("/") == 1]
        work = [path for path in found if path.startswith("snapshots/work/")]
        trash = [path for path in found if path.startswith("snapshots/trash/")]
        if (len(logs) <= names and not work and not trash) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def used(root: Path) -> dict[str, int]:
    """Return what lies below a directory and how many bytes its blocks have."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if not name.endswith(_LOG_OF_COMMITS):
                size = status.st_blocks * 512
                found[os.path.relpath(path, root)] = size
    return found
