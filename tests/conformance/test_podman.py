"""podman drives an OCI runtime: the same body for runc and for cais-runtime."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.testing.daemon import BIN
from cais.testing.peers import installed
from cais.testing.podman import IMAGE, Podman

if TYPE_CHECKING:
    from collections.abc import Iterator

if os.geteuid() != 0:
    pytest.skip("needs root", allow_module_level=True)
pytestmark = pytest.mark.timeout(300)  # a dozen programs for each command of podman's


@pytest.fixture(scope="module", params=["runc", "cais-runtime"])
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    installed("podman")
    runtime = installed("runc") if request.param == "runc" else str(BIN / request.param)
    with (
        tempfile.TemporaryDirectory(prefix="cais-podman-") as directory,
        Podman(Path(directory), runtime) as started,
    ):
        yield started


@pytest.fixture
def sleeper(podman: Podman) -> Iterator[str]:
    """A container that sleeps, with a health check."""
    check = ("--health-cmd", "test -e /tmp/healthy", "--health-interval", "disable")
    podman.run("-d", "--name", "sleeper", "--tmpfs", "/tmp", *check, "--", "sleep", "1000")
    yield "sleeper"
    podman("rm", "--force", "--time", "0", "sleeper")


def field(podman: Podman, name: str, path: str) -> str:
    return podman("inspect", name, "--format", path).stdout.strip()


def test_output_and_exit_codes(podman: Podman) -> None:
    done = podman.run("--rm", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_run(podman: Podman, command: str, code: int) -> None:
    refused = podman.run("--rm", "--", command, code=code).stderr
    # podman shows the runtime's reason because it reads it from the runtime's JSON log.
    told = refused.replace("error during container init: ", "")  # as runc says since 1.2
    assert f'unable to start container process: exec: "{command}": ' in told
    assert "level=error" not in refused


def test_standard_input(podman: Podman) -> None:
    words = podman.placed("--rm", "-i", "--", "cat")
    assert podman("run", *words, stdin=b"typed").stdout == "typed"


def test_run_with_a_terminal(podman: Podman) -> None:
    words = podman.placed(
        "--rm", "-it", "--", "sh", "-c", "tty; read word; echo $word $word; exit 3"
    )
    with podman.terminal("run", *words) as terminal:
        terminal.expect("/dev/pts/0")
        terminal.send("twice\n")
        terminal.expect("twice twice")
        assert terminal.wait() == 3


def test_exec(podman: Podman, sleeper: str) -> None:
    script = "echo $X; pwd; id -u; id -g; exit 9"
    words = ("exec", "-e", "X=1", "-w", "/etc", "-u", "7:8", sleeper, "sh", "-c", script)
    assert podman(*words, code=9).stdout.split() == ["1", "/etc", "7", "8"]
    assert "not found" in podman("exec", sleeper, "nosuch", code=127).stderr
    assert podman("exec", "-i", sleeper, "cat", stdin=b"typed").stdout == "typed"
    assert podman("exec", "--privileged", sleeper, "true").stdout == ""


def test_exec_in_the_background(podman: Podman, sleeper: str) -> None:
    podman("exec", "-d", sleeper, "sh", "-c", "echo done >/tmp/mark; exec sleep 1000")
    script = "until [ -e /tmp/mark ]; do sleep 0.05; done; cat /tmp/mark"
    assert podman("exec", sleeper, "sh", "-c", script).stdout == "done\n"


def test_exec_with_a_terminal(podman: Podman, sleeper: str) -> None:
    with podman.terminal("exec", "-it", sleeper, "sh") as terminal:
        terminal.expect("# ")
        terminal.resize(33, 101)
        terminal.send("tty; exit 4\n")
        terminal.expect("/dev/pts/0")
        assert terminal.wait() == 4


def test_pause_and_unpause(podman: Podman, sleeper: str) -> None:
    podman("pause", sleeper)
    assert field(podman, sleeper, "{{.State.Status}}") == "paused"
    podman("exec", sleeper, "true", code=255)
    podman("unpause", sleeper)
    assert field(podman, sleeper, "{{.State.Status}}") == "running"
    podman("exec", sleeper, "true")


def test_health_checks(podman: Podman, sleeper: str) -> None:
    podman("healthcheck", "run", sleeper, code=1)
    podman("exec", sleeper, "touch", "/tmp/healthy")
    podman("healthcheck", "run", sleeper)


def test_kill_wait_and_start_again(podman: Podman, sleeper: str) -> None:
    podman("kill", "--signal", "USR1", sleeper)  # pid 1 has no handler: nothing happens
    assert field(podman, sleeper, "{{.State.Status}}") == "running"
    podman("kill", sleeper)
    assert podman("wait", sleeper).stdout == "137\n"
    podman("start", sleeper)
    assert field(podman, sleeper, "{{.State.Status}}") == "running"
    podman("restart", "--time", "0", sleeper)
    assert field(podman, sleeper, "{{.State.Status}}") == "running"


def test_stop_asks_first(podman: Podman) -> None:
    script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    podman.run("-d", "--name", "polite", "--", "sh", "-c", script)
    podman("exec", "polite", "true")
    podman("stop", "--time", "20", "polite")
    assert field(podman, "polite", "{{.State.ExitCode}}") == "5"
    podman("rm", "polite")


def test_remove_by_force(podman: Podman) -> None:
    podman.run("-d", "--name", "doomed", "--", "sleep", "1000")
    podman("rm", "doomed", code=2)
    assert field(podman, "doomed", "{{.State.Status}}") == "running"
    podman("rm", "--force", "--time", "0", "doomed")
    assert "doomed" not in podman("ps", "-a").stdout


def test_logs(podman: Podman) -> None:
    podman.run("--name", "talker", "--", "sh", "-c", "echo out; echo err >&2")
    done = podman("logs", "talker")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    podman("rm", "talker")


def test_limits_and_their_change(podman: Podman) -> None:
    podman.run(
        "-d", "--name", "small", "--memory", "64m", "--pids-limit", "30", "--", "sleep", "1000"
    )
    pid = field(podman, "small", "{{.State.Pid}}")
    assert podman("stats", "--no-stream", "--format", "json", "small").stdout
    podman("update", "--memory", "96m", "small")
    assert field(podman, "small", "{{.State.Pid}}") == pid
    limit = next(
        Path("/sys/fs/cgroup").glob(f"**/{podman.cgroup_parent}/libpod-*/memory.limit_in_bytes"),
        None,
    )
    if limit is not None:  # cgroup v1
        assert int(limit.read_text()) == 96 << 20
    podman("rm", "--force", "--time", "0", "small")


def test_top_shows_the_processes(podman: Podman, sleeper: str) -> None:
    assert "sleep 1000" in podman("top", sleeper).stdout


@pytest.mark.parametrize("infra", [False, True])
def test_pods(podman: Podman, infra: bool) -> None:
    parent = f"--cgroup-parent=/{podman.cgroup_parent}"
    made_of = ["--infra-image", IMAGE, "--infra-command", "sleep 1000", "--network", "none"]
    podman("pod", "create", "--name", "pod", parent, *(made_of if infra else ["--infra=false"]))
    network = [] if infra else ["--network=none", parent]
    for name in ("one", "two"):
        podman("run", "-d", "--pod", "pod", "--name", name, *network, IMAGE, "sleep", "1000")
    if infra:
        shared = [
            podman("exec", name, "readlink", "/proc/self/ns/ipc").stdout for name in ("one", "two")
        ]
        assert shared[0] == shared[1]
    pods = json.loads(podman("pod", "ps", "--format", "json").stdout)
    assert [pod["Status"] for pod in pods] == ["Running"]
    podman("pod", "pause", "pod")
    podman("pod", "unpause", "pod")
    podman("pod", "stop", "--time", "0", "pod")
    podman("pod", "rm", "--force", "--time", "0", "pod")
    left = podman("ps", "-a", "--format", "{{.Names}}").stdout.split()
    assert not {"one", "two"} & set(left)


def test_security_settings_reach_the_process(podman: Podman) -> None:
    script = (
        "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/sys/kernel/shmmax"
    )
    options = (
        "--cap-drop",
        "all",
        "--security-opt",
        "no-new-privileges",
        "--sysctl",
        "kernel.shmmax=65536",
    )
    done = podman.run(
        "--rm", *options, "--read-only", "--", "sh", "-c", f"{script}; touch /x", code=1
    )
    words = done.stdout.split()
    assert words == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2", "65536"]


def test_volumes_names_and_environment(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside\n")
    options = ("-v", f"{tmp_path}:/data", "--hostname", "named", "--env", "WORD=word")
    script = "cat /data/file; hostname; echo $WORD; echo inside >/data/back"
    done = podman.run("--rm", *options, "--", "sh", "-c", script)
    assert done.stdout == "from outside\nnamed\nword\n"
    assert (tmp_path / "back").read_text() == "inside\n"


def test_a_checkpoint_is_refused_or_made(podman: Podman, sleeper: str) -> None:
    done = podman("container", "checkpoint", "--leave-running", sleeper, code=None)
    if done.returncode:
        assert "criu" in done.stderr.lower()
    assert field(podman, sleeper, "{{.State.Status}}") == "running"
