"""``docker checkpoint`` with the real CLI: experimental, as in Docker, and honest about criu."""

import re
from collections.abc import Callable

import pytest

from cais.testing.daemon import TestDaemon

# In one line, without the name of a log file that is gone.
REASON = (
    r"Error response from daemon: {}: "
    r"(criu {} failed: [^\n]+|criu failed: [^\n]+|checkpoint and restore need CRIU: [^\n]+"
    r"|CRIU version check failed: [^\n]+)\n+"  # runc's word, of a machine without it
)

FAILED_START = r"failed to create task for container: [^\n]+ failed: [^\n]+"


@pytest.fixture
def experimental(fresh_daemon: Callable[..., TestDaemon]) -> TestDaemon:
    return fresh_daemon("--experimental")


def test_is_hidden_without_experimental_mode(daemon: TestDaemon) -> None:
    assert daemon.docker("version", "--format", "{{.Server.Experimental}}").stdout == "false\n"
    refused = daemon.docker("checkpoint", "ls", "box", check=False)
    assert refused.returncode == 1
    assert "experimental" in refused.stderr


@pytest.mark.parametrize("runtime", ["cais", "runc"])
def test_a_checkpoint_or_the_reason_why_there_is_none(
    experimental: TestDaemon, runtime: str
) -> None:
    """criu refuses many kernels and programs: then nothing has changed, and its reason is told."""
    assert experimental.docker("info", "--format", "{{.ExperimentalBuild}}").stdout == "true\n"
    box = ("--name", "box", "--runtime", runtime, "--network", "none", "busybox", "sleep", "600")
    experimental.docker("run", "-d", *box)
    done = experimental.docker("checkpoint", "create", "box", "one", check=False)
    if done.returncode == 0:
        assert experimental.docker("checkpoint", "ls", "box").stdout.split()[-1] == "one"
        experimental.docker("wait", "box")
        experimental.docker("start", "--checkpoint", "one", "box")
    else:
        assert re.fullmatch(REASON.format("cannot checkpoint container box", "dump"), done.stderr)
        assert experimental.docker("checkpoint", "ls", "box").stdout.split("\n")[1:] == [""]
    assert experimental.docker("exec", "box", "echo", "on").stdout == "on\n"


def test_a_restore_that_fails_says_why(experimental: TestDaemon) -> None:
    """What is there is no checkpoint; the container stays as it was, and starts without it."""
    experimental.docker("create", "--name", "box", "--network", "none", "busybox", "echo", "on")
    box = experimental.docker("inspect", "--format", "{{.Id}}", "box").stdout.strip()
    place = experimental.data_root / "containers" / box / "checkpoints/one"
    place.mkdir(parents=True)
    (place / "descriptors.json").write_text('["/dev/null", "pipe:[1]", "pipe:[2]"]')
    before = experimental.cgroups()
    done = experimental.docker("start", "--checkpoint", "one", "box", check=False)
    assert done.returncode == 1
    said = done.stderr.removesuffix("Error: failed to start containers: box\n")
    assert re.fullmatch(REASON.format(FAILED_START, "restore"), said)
    assert experimental.cgroups() == before
    assert not any((experimental.exec_root / "runtimes/cais/state").iterdir())
    assert experimental.docker("start", "-a", "box").stdout == "on\n"


def test_a_terminal_is_refused_before_anything_is_written(experimental: TestDaemon) -> None:
    box = ("--name", "box", "--network", "none", "busybox", "sleep", "600")
    experimental.docker("run", "-d", "-t", *box)
    done = experimental.docker("checkpoint", "create", "box", "one", check=False)
    assert done.returncode == 1
    assert done.stderr.strip().removeprefix("Error response from daemon: ") == (
        "cannot checkpoint container box: a container with a terminal cannot be restored"
    )
    assert experimental.docker("exec", "box", "echo", "on").stdout == "on\n"


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
