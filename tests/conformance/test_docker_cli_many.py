"""A hundred containers at once, and nothing of them left on the host."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cais.testing.daemon import TestDaemon
from cais.testing.waiting import wait_until

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
    wait_until(lambda: not daemon.left_since(before), lambda: daemon.left_since(before))
    assert daemon.descriptor_count() <= descriptors + 10
