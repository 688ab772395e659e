"""``docker checkpoint`` with the real CLI: experimental, as in Docker, and honest about criu."""

import shutil
from collections.abc import Callable

import pytest

from cais.testing.daemon import TestDaemon


@pytest.fixture
def experimental(fresh_daemon: Callable[..., TestDaemon]) -> TestDaemon:
    return fresh_daemon("--experimental")


def test_is_hidden_without_experimental_mode(daemon: TestDaemon) -> None:
    assert daemon.docker("version", "--format", "{{.Server.Experimental}}").stdout == "false\n"
    refused = daemon.docker("checkpoint", "ls", "box", check=False)
    assert refused.returncode == 1
    assert "experimental" in refused.stderr


def test_a_failed_checkpoint_leaves_the_container_running(experimental: TestDaemon) -> None:
    """criu refuses many hosts and programs: then nothing has changed, and the reason is told."""
    runtime = "runc" if shutil.which("runc") else "cais"
    assert experimental.docker("info", "--format", "{{.ExperimentalBuild}}").stdout == "true\n"
    start = ("run", "-d", "--name", "box", "--runtime", runtime, "-t", "busybox", "sleep", "600")
    experimental.docker(*start)
    # A terminal of another process's: criu takes none.
    failed = experimental.docker("checkpoint", "create", "box", "one", check=False)
    assert failed.returncode == 1
    assert "cannot checkpoint container box: " in failed.stderr
    assert ("criu" if runtime == "runc" else "--runtime runc") in failed.stderr
    assert experimental.docker("exec", "box", "echo", "on").stdout == "on\n"
    assert experimental.docker("checkpoint", "ls", "box").stdout.split("\n")[1:] == [""]


def test_what_is_refused(experimental: TestDaemon) -> None:
    experimental.docker("create", "--name", "box", "busybox", "true")
    for arguments, text in (
        (("checkpoint", "create", "box", "one"), "is not running"),
        (("checkpoint", "create", "none", "one"), "No such container: none"),
        (("checkpoint", "rm", "box", "one"), "checkpoint one does not exist for container box"),
        (("checkpoint", "rm", "box", "..%2f.."), "invalid checkpoint ID"),
        (("start", "--checkpoint", "one", "box"), "checkpoint one does not exist for container"),
        (("start", "--checkpoint", "one", "--checkpoint-dir", "/x", "box"), "not supported"),
    ):
        refused = experimental.docker(*arguments, check=False)
        assert refused.returncode == 1, arguments
        assert text in refused.stderr, arguments
    assert experimental.docker("start", "-a", "box").stdout == ""
