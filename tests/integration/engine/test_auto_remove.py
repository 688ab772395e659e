"""Containers that are removed when they end."""

from cais.testing.daemon import TestDaemon


def test_its_files_are_not_synced_and_survive_a_restart(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--rm", "--name", "passing", "busybox", "sleep", "1000")
    daemon.docker("exec", "passing", "sh", "-c", "echo kept > /kept")
    daemon.docker("restart", "-t", "0", "passing")
    assert daemon.docker("exec", "passing", "cat", "/kept").stdout == "kept\n"
    root = daemon.docker("exec", "passing", "grep", " / ", "/proc/mounts").stdout
    assert "volatile" in root  # as an option, or as fsync=volatile
    daemon.docker("run", "-d", "--name", "lasting", "busybox", "sleep", "1000")
    root = daemon.docker("exec", "lasting", "grep", " / ", "/proc/mounts").stdout
    assert "volatile" not in root
    daemon.docker("rm", "-f", "passing", "lasting")
