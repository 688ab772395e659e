"""``docker run --runtime``: the same containers by our own runtime, by runc and by crun."""

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cais.testing.daemon import TestDaemon
from cais.testing.peers import installed
from cais.testing.pseudoterminal import PseudoTerminal
from cais.testing.waiting import wait_until

RUNTIMES = ("cais", "runc", "crun")
_UNIFIED = "/sys/fs/cgroup/unified"
_HIDE_UNIFIED = f"if mountpoint -q {_UNIFIED}; then umount {_UNIFIED}; fi"


class RuntimesDaemon(TestDaemon):
    """A daemon on a host that is no hybrid of both versions of control groups: crun refuses it."""

    def start(self, timeout_s: float = 60) -> None:
        self.run_inside(["sh", "-c", _HIDE_UNIFIED])
        super().start(timeout_s)


@pytest.fixture(scope="module")
def daemon(busybox_tar: bytes) -> Iterator[TestDaemon]:
    with tempfile.TemporaryDirectory(prefix="cais-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        runtimes = {"mine": {"path": "runc", "runtimeArgs": ["--debug"]}, "gone": {"path": "/no"}}
        file = directory / "daemon.json"
        file.write_text(json.dumps({"runtimes": runtimes}))
        with RuntimesDaemon(directory, "--config-file", str(file)) as started:
            started.docker("load", stdin=busybox_tar)
            yield started


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "cais":
        installed(name)
    return name


class Containers:
    """Containers of one runtime, removed in the end."""

    def __init__(self, daemon: TestDaemon, runtime: str) -> None:
        self.daemon = daemon
        self.runtime = runtime

    def run(
        self, *arguments: str, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        words = ("run", "--rm", "--runtime", self.runtime, *arguments)
        return self.daemon.docker(*words, check=check, stdin=stdin)

    def start(self, *arguments: str) -> str:
        words = ("run", "-d", "--runtime", self.runtime, *arguments)
        return self.daemon.docker(*words).stdout.strip()

    def docker(self, *arguments: str, check: bool = True) -> str:
        return self.daemon.docker(*arguments, check=check).stdout.strip()

    def state(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(
            self.docker("inspect", "--format", "{{json .State}}", name)
        )
        return document


@pytest.fixture
def containers(daemon: TestDaemon, runtime: str) -> Iterator[Containers]:
    yield Containers(daemon, runtime)
    if left := daemon.docker("ps", "-aq").stdout.split():
        daemon.docker("rm", "-f", *left)


def test_all_are_listed(daemon: TestDaemon) -> None:
    shown = daemon.docker("info", "--format", "{{.DefaultRuntime}} {{json .Runtimes}}").stdout
    default, _, document = shown.partition(" ")
    assert default == "cais"
    found = json.loads(document)
    assert found["cais"] == {"path": "cais-runtime"}
    assert found["mine"] == {"path": "runc", "runtimeArgs": ["--debug"]}
    for name in ("runc", "crun"):
        if shutil.which(name):
            assert found[name] == {"path": name}


def test_an_unknown_one_is_refused(daemon: TestDaemon) -> None:
    refused = daemon.docker("run", "--rm", "--runtime", "kata", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "Error response from daemon: unknown or invalid runtime name: kata" in refused.stderr
    assert not daemon.docker("ps", "-aq").stdout


def test_one_whose_program_is_gone_fails_the_start(daemon: TestDaemon) -> None:
    failed = daemon.docker("run", "--rm", "--runtime", "gone", "busybox", "true", check=False)
    assert failed.returncode == 127
    assert 'exec: "/no": executable file not found in $PATH' in failed.stderr


def test_a_configured_one_gets_its_arguments(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "args", "--runtime", "mine", "busybox", "sleep", "600")
    try:
        shown = daemon.docker("inspect", "--format", "{{.HostConfig.Runtime}}", "args").stdout
        assert shown == "mine\n"
        root = daemon.exec_root / "runtimes/mine/state"
        listed = daemon.run_inside(["runc", "--root", str(root), "list", "-q"]).stdout.split()
        assert listed == daemon.docker("ps", "-q", "--no-trunc").stdout.split()
    finally:
        daemon.docker("rm", "-f", "args")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("true",), 0, ""),
        (("sh", "-c", "echo out; echo err >&2; exit 3"), 3, "err\n"),
        (("sh", "-c", "kill -KILL $$"), 137, ""),
        (("no-such-program",), 127, "not found in $PATH"),
        (("/etc/passwd",), 126, "permission denied"),
    ],
)
def test_output_and_exit_codes(
    containers: Containers, command: tuple[str, ...], code: int, said: str
) -> None:
    flags = ("--init",) if "kill" in command[-1] else ()
    result = containers.run(*flags, "busybox", *command, check=False)
    if "it is not executable: Operation not permitted" in result.stderr:
        code, said = 125, "not executable"  # newer crun: what Docker, too, does not take for EACCES
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert result.stdout == ("out\n" if code == 3 else "")


def test_standard_input_and_its_end(containers: Containers) -> None:
    text = b"line\n" * 100_000
    result = containers.run("-i", "busybox", "sh", "-c", "md5sum; echo end", stdin=text)
    assert result.stdout.endswith("  -\nend\n")


def test_the_image_decides_who_a_user_is(containers: Containers) -> None:
    script = "id; echo $HOME; pwd; cat /proc/self/status | grep Groups"
    out = containers.run("-u", "nobody", "-w", "/made", "busybox", "sh", "-c", script).stdout
    assert out.startswith("uid=65534(nobody) gid=65534(nobody) groups=")
    assert "\n/made\n" in out
    refused = containers.run("-u", "stranger", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "unable to find user stranger: no matching entries in passwd" in refused.stderr


def test_a_terminal(containers: Containers) -> None:
    command = ["docker", "run", "--rm", "-it", "--runtime", containers.runtime, "busybox"]
    environment = containers.daemon.environment
    with PseudoTerminal(command, environment, rows=30, columns=100) as screen:
        screen.expect("# ")
        screen.send("echo $((6 * 7)); stty size\r")
        screen.expect(r"42\r\n30 100")
        screen.resize(40, 120)
        screen.send("until stty size | grep '^40 120'; do sleep 0.05; done\r")
        screen.expect("40 120\r\n")
        screen.send("exit 3\r")
        assert screen.wait() == 3


def test_execs(containers: Containers) -> None:
    containers.start("--name", "box", "-e", "A=b", "busybox", "sleep", "600")
    assert containers.docker("exec", "box", "sh", "-c", "echo $A; hostname") != ""
    failed = containers.daemon.docker("exec", "box", "sh", "-c", "exit 7", check=False)
    assert failed.returncode == 7
    assert containers.docker("exec", "-u", "nobody", "box", "id", "-u") == "65534"
    assert containers.docker("exec", "-i", "box", "cat") == ""
    missing = containers.daemon.docker("exec", "box", "no-such", check=False)
    assert missing.returncode == 127
    lost = containers.daemon.docker("exec", "-w", "/no/such", "box", "true", check=False)
    assert lost.returncode == 126
    command = ["docker", "exec", "-it", "box", "sh"]
    with PseudoTerminal(command, containers.daemon.environment, rows=20, columns=90) as screen:
        screen.expect("# ")
        screen.send("stty size; exit 5\r")
        screen.expect("20 90")
        assert screen.wait() == 5


def test_the_code_of_an_exec_that_ends_at_once_is_not_lost(containers: Containers) -> None:
    containers.start("--name", "box", "busybox", "sleep", "600")
    running = [
        subprocess.Popen(
            ["docker", "exec", "box", "sh", "-c", f"exit {code}"],
            env=containers.daemon.environment,
        )
        for code in range(1, 13)
    ]
    assert [each.wait(60) for each in running] == list(range(1, 13))


def test_signals_stop_and_start_again(containers: Containers) -> None:
    script = "trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.1; done"
    containers.start("--name", "box", "busybox", "sh", "-c", script)
    wait_until(lambda: "ready" in containers.docker("logs", "box"))
    containers.docker("kill", "-s", "USR1", "box")
    assert containers.docker("wait", "box") == "4"
    assert containers.docker("logs", "box").split() == ["ready", "got"]
    containers.docker("start", "box")
    containers.docker("stop", "-t", "0", "box")
    assert containers.state("box")["ExitCode"] == 137
    containers.docker("restart", "-t", "0", "box")
    containers.docker("restart", "-t", "0", "box")
    assert containers.state("box")["Running"]
    containers.docker("rm", "-f", "box")


def test_pause_and_limits(containers: Containers) -> None:
    containers.start("--name", "box", "-m", "64m", "busybox", "sleep", "600")
    containers.docker("pause", "box")
    assert containers.state("box")["Status"] == "paused"
    refused = containers.daemon.docker("exec", "box", "true", check=False)
    assert "paused" in refused.stderr
    containers.docker("unpause", "box")
    assert containers.docker("exec", "box", "echo", "on") == "on"
    containers.docker("update", "-m", "96m", "--memory-swap", "128m", "--pids-limit", "77", "box")
    limits = [
        path.read_text().strip()
        for group in containers.daemon.cgroups()
        for name in ("memory.limit_in_bytes", "memory.max", "pids.max")
        if (path := group / name).exists()
    ]
    assert str(96 << 20) in limits
    assert "77" in limits


def test_a_paused_container_is_killed(containers: Containers) -> None:
    containers.start("--name", "box", "busybox", "sleep", "600")
    containers.docker("pause", "box")
    containers.docker("kill", "box")
    assert containers.docker("wait", "box") == "137"


def test_running_out_of_memory_is_told(containers: Containers) -> None:
    hog = "x=a; while :; do x=$x$x; done"
    result = containers.start("--name", "hog", "-m", "16m", "busybox", "sh", "-c", hog)
    assert result
    assert containers.docker("wait", "hog") == "137"
    assert containers.state("hog")["OOMKilled"]


def test_an_init_reaps(containers: Containers) -> None:
    orphan = "orphan=$(sleep 0.2 >/dev/null & echo $!); while [ -e /proc/$orphan ]; do :; done"
    script = f"{orphan}; cat /proc/1/comm"
    assert containers.run("--init", "busybox", "sh", "-c", script).stdout == "docker-init\n"


def test_a_health_check(containers: Containers) -> None:
    health = ("--health-cmd", "test -e /well", "--health-interval", "200ms")
    containers.start("--name", "box", *health, "busybox", "sh", "-c", "touch /well; sleep 600")
    wait_until(lambda: containers.state("box")["Health"]["Status"] == "healthy")


def test_networks(containers: Containers) -> None:
    links = "ls /sys/class/net"
    assert containers.run("--network", "none", "busybox", "sh", "-c", links).stdout == "lo\n"
    assert "eth0" in containers.run("busybox", "sh", "-c", links).stdout.split()
    shown = containers.run("--network", "host", "busybox", "readlink", "/proc/self/ns/net").stdout
    assert shown == containers.daemon.run_inside(["readlink", "/proc/self/ns/net"]).stdout
    containers.start("--name", "box", "busybox", "sleep", "600")
    shared = containers.run("--network", "container:box", "busybox", "hostname", "-i").stdout
    assert shared.strip() == containers.docker("exec", "box", "hostname", "-i")


def test_names(containers: Containers) -> None:
    script = "hostname; cat /proc/sys/kernel/domainname"
    flags = ("--hostname", "quay", "--domainname", "sea.example")
    out = containers.run(*flags, "busybox", "sh", "-c", script).stdout
    assert out == "quay\nsea.example\n"


def test_volumes_and_read_only_roots(containers: Containers, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("from the host\n")
    script = "cat /h/greeting; touch /h/x 2>/dev/null || echo kept; echo v > /d/x; touch /y"
    binds = ("-v", f"{tmp_path}:/h:ro", "-v", "shared:/d", "--tmpfs", "/t")
    result = containers.run(*binds, "--read-only", "busybox", "sh", "-c", script, check=False)
    assert result.stdout == "from the host\nkept\n"
    assert "Read-only file system" in result.stderr
    assert containers.run("-v", "shared:/d", "busybox", "cat", "/d/x").stdout == "v\n"
    containers.docker("volume", "rm", "shared")


def test_privileges(containers: Containers) -> None:
    status = ("sh", "-c", "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status")
    facts = dict(
        line.split(":\t") for line in containers.run("busybox", *status).stdout.splitlines()
    )
    assert facts == {"CapEff": "00000000a80425fb", "NoNewPrivs": "0", "Seccomp": "2"}
    flags = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    facts = dict(
        line.split(":\t") for line in containers.run(*flags, "busybox", *status).stdout.splitlines()
    )
    assert facts == {"CapEff": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    refused = containers.run("busybox", "unshare", "-r", "true", check=False)
    assert "Operation not permitted" in refused.stderr
    open_ = containers.run("--security-opt", "seccomp=unconfined", "busybox", *status).stdout
    assert "Seccomp:\t0" in open_


def test_a_restart_policy(containers: Containers) -> None:
    script = "echo run; exit 9"
    containers.start("--name", "box", "--restart", "on-failure:2", "busybox", "sh", "-c", script)
    wait_until(lambda: containers.state("box")["Status"] == "exited")
    assert containers.docker("logs", "box").split() == ["run"] * 3
    assert containers.state("box")["ExitCode"] == 9


def test_the_hosts_mount_table_never_shows_a_root_and_nothing_is_left(
    containers: Containers,
) -> None:
    daemon = containers.daemon
    state = daemon.exec_root / "runtimes" / containers.runtime

    def is_known_or_asked() -> bool:
        """Say whether the runtime knows a container or one of its commands runs."""
        # In a hidden directory crun keeps the seccomp programs it has compiled.
        return any(path.exists() for path in state.glob("*/[!.]*"))

    containers.run("busybox", "true")
    wait_until(lambda: not (daemon.cgroups() or daemon.snapshot()["bundles"]))
    wait_until(lambda: not is_known_or_asked())
    before = daemon.snapshot()
    containers.start("--name", "box", "busybox", "sleep", "600")
    containers.docker("exec", "box", "true")
    assert daemon.snapshot()["mounts"] <= before["mounts"]
    containers.run("busybox", "no-such", check=False)
    containers.docker("rm", "-f", "box")
    wait_until(lambda: not daemon.left_since(before), lambda: daemon.left_since(before))
    wait_until(lambda: not is_known_or_asked())


def test_containers_outlive_a_killed_daemon(containers: Containers, tmp_path: Path) -> None:
    daemon = containers.daemon
    containers.start(
        "--name", "counter", "busybox", "sh", "-c", "while :; do echo x; sleep 0.01; done"
    )
    wait = f"until [ -e {tmp_path}/go ]; do usleep 10000; done; exit 42"
    gate = ("-v", f"{tmp_path}:{tmp_path}")
    containers.start("--name", "ending", *gate, "busybox", "sh", "-c", wait)
    pid = containers.state("counter")["Pid"]
    daemon.kill()
    (tmp_path / "go").touch()
    wait_until(lambda: not any("exit 42" in line for line in daemon.processes().values()))
    daemon.start()
    assert containers.state("counter")["Pid"] == pid
    assert containers.state("ending")["ExitCode"] == 42
    assert containers.docker("exec", "counter", "echo", "hello") == "hello"
    containers.docker("stop", "-t", "0", "counter")
    assert containers.state("counter")["ExitCode"] == 137


def test_containers_outlive_a_killed_shim(containers: Containers) -> None:
    daemon = containers.daemon
    containers.start("--name", "box", "busybox", "sleep", "600")
    pid = containers.state("box")["Pid"]
    (shim,) = (number for number, line in daemon.processes().items() if "cais.shim" in line)
    daemon.run_inside(["kill", f"-{int(signal.SIGKILL)}", str(shim)])
    wait_until(lambda: daemon.docker("pause", "box", check=False).returncode == 0)
    assert containers.state("box")["Pid"] == pid
    containers.docker("unpause", "box")
    assert containers.docker("exec", "box", "echo", "hello") == "hello"
    containers.docker("rm", "-f", "box")
    wait_until(lambda: not daemon.cgroups())


def test_cve_2020_8557_the_engine_s_files_fill_up(containers: Containers) -> None:
    """Row A31: what a container writes to /etc/hosts is in memory, bounded, and gone with it."""
    containers.start("--name", "filler", "busybox", "sleep", "600")
    fill = "dd if=/dev/zero bs=64k count=40 of=/etc/hosts 2>&1 | grep -o 'No space'; wc -c <$0"
    reason, size = containers.docker("exec", "filler", "sh", "-c", fill, "/etc/hosts").split()[-2:]
    assert reason == "space"
    assert 900_000 < int(size) <= 1 << 20
    containers.docker("restart", "-t", "0", "filler")
    assert "localhost" in containers.docker("exec", "filler", "cat", "/etc/hosts")
    assert containers.docker("exec", "filler", "hostname", "-i")
