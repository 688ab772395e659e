"""A hundred containers at once, and nothing of them left on the host."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cais.testing.daemon import TestDaemon

COUNT = 100


def test_a_hundred_containers_at_once_leave_nothing(
    fresh_daemon: Callable[..., TestDaemon],
) -> None:
    daemon = fresh_daemon()
    daemon.docker("run", "--rm", "busybox", "true")  # what is made once is made
    before, descriptors = daemon.snapshot(), daemon.descriptor_count()

    def start(index: int) -> str:
        return daemon.docker(
            "run", "-d", "--name", f"many{index}", "busybox", "sleep", "600"
        ).stdout.strip()

    with ThreadPoolExecutor(10) as pool:
        identifiers = list(pool.map(start, range(COUNT)))
        assert len(set(identifiers)) == COUNT
        listed = daemon.docker("ps", "-q", "--no-trunc").stdout.split()
        assert set(listed) == set(identifiers)
        chunks = [identifiers[index::10] for index in range(10)]
        for result in pool.map(lambda chunk: daemon.docker("rm", "-f", *chunk), chunks):
            assert result.returncode == 0
    assert not daemon.docker("ps", "-aq").stdout
    assert left(daemon, before) == {}
    assert daemon.descriptor_count() <= descriptors + 10


def left(daemon: TestDaemon, before: object, timeout_s: float = 10) -> dict[str, set[str]]:
    """Return what is there beyond ``before``; teardown may follow the reply by a moment."""
    assert isinstance(before, dict)
    deadline = time.monotonic() + timeout_s
    while True:
        now = daemon.snapshot()
        extra = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if not extra or time.monotonic() > deadline:
            return extra
        time.sleep(0.1)
