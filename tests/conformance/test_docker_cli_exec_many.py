"""The exit code of an exec is known when its output ends, every time."""

from concurrent.futures import ThreadPoolExecutor

from cais.testing.daemon import TestDaemon


def test_no_exit_code_is_lost(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "codes", "busybox", "sleep", "600")

    def code_of(number: int) -> int:
        script = f"echo {number}; exit {number}"
        return daemon.docker("exec", "codes", "sh", "-c", script, check=False).returncode

    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(code_of, range(1, 101))) == list(range(1, 101))
    finally:
        daemon.docker("rm", "-f", "codes")
