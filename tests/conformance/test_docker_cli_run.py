"""``docker run`` with the real CLI: the flags of the first milestone and what they do inside."""

import json
import re
from pathlib import Path

import pytest

from cais.testing.daemon import TestDaemon
from cais.testing.waiting import wait_until


def run(daemon: TestDaemon, *arguments: str) -> str:
    return daemon.docker("run", "--rm", *arguments).stdout


def test_prints_what_the_container_writes(daemon: TestDaemon) -> None:
    result = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("true",), 0, ""),
        (("sh", "-c", "exit 3"), 3, ""),
        (("sh", "-c", "kill -INT $$"), 130, ""),
        (("sh", "-c", "kill -KILL $$"), 137, ""),
        (("no-such-program",), 127, r'"no-such-program": executable file not found in \$PATH'),
        (("/no/such/program",), 127, "no such file or directory"),
        (("/etc/passwd",), 126, "permission denied"),
        (("/etc",), 126, "permission denied|is a directory"),
    ],
)
def test_exit_codes(
    daemon: TestDaemon, docker_major: int, command: tuple[str, ...], code: int, said: str
) -> None:
    # pid 1 is deaf to signals it sends itself: with --init, the shell is not pid 1.
    flags = ("--init",) if "kill" in command[-1] else ()
    result = daemon.docker("run", "--rm", *flags, "busybox", *command, check=False)
    if command == ("/etc",) and docker_major == 20:
        code = 125  # that CLI does not know the message
    assert result.returncode == code, result.stderr
    assert re.search(said, result.stderr), result.stderr
    assert not daemon.docker("ps", "-aq").stdout


def test_detached_container_is_listed_and_stops(daemon: TestDaemon) -> None:
    identifier = daemon.docker("run", "-d", "--name", "detached", "busybox", "sleep", "600")
    try:
        assert re.fullmatch(r"[0-9a-f]{64}\n", identifier.stdout)
        listed = daemon.docker("ps", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Command}}")
        assert listed.stdout.strip() == f'{identifier.stdout.strip()} busybox "sleep 600"'
        assert daemon.docker("stop", "-t", "0", "detached").stdout == "detached\n"
        assert "Exited (137)" in daemon.docker("ps", "-a", "--format", "{{.Status}}").stdout
    finally:
        daemon.docker("rm", "-f", "detached")


def test_is_isolated_from_the_host(daemon: TestDaemon) -> None:
    out = run(daemon, "busybox", "sh", "-c", "echo $$; hostname; ls /proc | grep -c '^[0-9]'")
    pid, hostname, processes = out.split()
    assert pid == "1"
    assert re.fullmatch("[0-9a-f]{12}", hostname)
    assert int(processes) <= 4
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        inside = run(daemon, "busybox", "readlink", f"/proc/self/ns/{kind}").strip()
        assert inside != daemon.run_inside(["readlink", f"/proc/self/ns/{kind}"]).stdout.strip()


def test_environment_and_working_directory(daemon: TestDaemon) -> None:
    out = run(daemon, "-e", "A=b c", "-e", "EMPTY=", "-w", "/made/for/it", "busybox", "env")
    lines = set(out.splitlines())
    assert {"A=b c", "EMPTY=", "HOME=/root"} <= lines
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)
    assert any(re.fullmatch("HOSTNAME=[0-9a-f]{12}", line) for line in lines)
    assert run(daemon, "-w", "/made/for/it", "busybox", "pwd") == "/made/for/it\n"


def test_hostname(daemon: TestDaemon) -> None:
    out = run(daemon, "--hostname", "quay", "busybox", "sh", "-c", "hostname; cat /etc/hostname")
    assert out == "quay\nquay\n"
    assert re.search(
        r"\squay$", run(daemon, "-h", "quay", "busybox", "cat", "/etc/hosts"), re.MULTILINE
    )


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("nobody", "uid=65534(nobody) gid=65534(nobody)"),
        ("1234", "uid=1234 gid=0(root)"),
        ("1234:50", "uid=1234 gid=50(staff)"),
        ("nobody:staff", "uid=65534(nobody) gid=50(staff)"),
    ],
)
def test_user(daemon: TestDaemon, user: str, expected: str) -> None:
    assert run(daemon, "-u", user, "busybox", "id").startswith(expected)


def test_unknown_user_is_refused(daemon: TestDaemon) -> None:
    result = daemon.docker("run", "--rm", "-u", "nosuch", "busybox", "true", check=False)
    assert result.returncode == 125
    assert "unable to find user nosuch: no matching entries in passwd file" in result.stderr


def test_read_only_root_with_tmpfs(daemon: TestDaemon) -> None:
    script = "touch /x 2>&1; touch /t/x && echo written; mount | grep ' /t '"
    out = run(daemon, "--read-only", "--tmpfs", "/t", "busybox", "sh", "-c", script)
    assert "Read-only file system" in out
    assert "written" in out
    options = out.splitlines()[-1]
    assert options.startswith("tmpfs on /t type tmpfs (")
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(options.split("(")[1].rstrip(")").split(","))


def test_volumes_and_binds(daemon: TestDaemon, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("from the host\n")
    bind = f"{tmp_path}:/h:ro"
    try:
        out = run(daemon, "-v", "vol:/d", "-v", bind, "busybox", "sh", "-c",
                  "cat /h/greeting; echo kept > /d/file; touch /h/x 2>&1; true")  # fmt: skip
        assert out.startswith("from the host\n")
        assert "Read-only file system" in out
        assert run(daemon, "-v", "vol:/d", "busybox", "cat", "/d/file") == "kept\n"
        assert "vol" in daemon.docker("volume", "ls", "-q").stdout.split()
    finally:
        daemon.docker("volume", "rm", "vol", check=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "greeting"]


def test_capabilities(daemon: TestDaemon) -> None:
    def capabilities(*flags: str) -> dict[str, int]:
        out = run(daemon, *flags, "busybox", "grep", "^Cap", "/proc/self/status")
        return {
            name: int(value, 16) for name, value in (line.split(":") for line in out.splitlines())
        }

    default = capabilities()
    assert default["CapEff"] == default["CapPrm"] == default["CapBnd"] == 0xA80425FB
    assert default["CapInh"] == default["CapAmb"] == 0
    assert set(capabilities("--cap-drop", "ALL").values()) == {0}
    added = capabilities("--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    assert added["CapEff"] == added["CapBnd"] == 1 << 12


def test_no_new_privileges_and_seccomp(daemon: TestDaemon) -> None:
    status = run(
        daemon, "--security-opt", "no-new-privileges", "busybox", "cat", "/proc/self/status"
    )
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    status = run(daemon, "busybox", "cat", "/proc/self/status")
    assert re.search(r"^NoNewPrivs:\t0$", status, re.MULTILINE)
    denied = daemon.docker("run", "--rm", "busybox", "unshare", "-m", "true", check=False)
    assert "Operation not permitted" in denied.stderr


def test_ulimit(daemon: TestDaemon) -> None:
    limit = "ulimit -n; ulimit -Hn"
    assert run(daemon, "--ulimit", "nofile=100", "busybox", "sh", "-c", limit) == "100\n100\n"
    assert run(daemon, "--ulimit", "nofile=64:128", "busybox", "sh", "-c", limit) == "64\n128\n"


def test_a_ulimit_the_host_forbids_is_clamped_or_set(daemon: TestDaemon) -> None:
    out = run(daemon, "--ulimit", "nofile=1048576", "busybox", "sh", "-c", "ulimit -Hn")
    assert 0 < int(out) <= 1048576


def test_init_reaps_and_forwards(daemon: TestDaemon) -> None:
    orphan = "orphan=$(sleep 0.1 >/dev/null & echo $!); while [ -e /proc/$orphan ]; do :; done"
    script = f"{orphan}; ps -o pid,stat,args"
    out = run(daemon, "--init", "busybox", "sh", "-c", script)
    assert not re.search(r"\sZ", out), out
    first = next(line for line in out.splitlines() if line.split()[0] == "1")
    assert "sh -c" not in first.split(None, 2)[2][:5]


def test_stop_signal(daemon: TestDaemon) -> None:
    script = 'trap "echo got USR1; exit 7" USR1; echo ready; while :; do sleep 0.05; done'
    daemon.docker(
        "run", "-d", "--name", "sig", "--stop-signal", "USR1", "busybox", "sh", "-c", script
    )
    try:
        while "ready" not in daemon.docker("logs", "sig").stdout:
            pass
        daemon.docker("stop", "sig")
        assert daemon.docker("inspect", "-f", "{{.State.ExitCode}}", "sig").stdout == "7\n"
        assert daemon.docker("logs", "sig").stdout == "ready\ngot USR1\n"
    finally:
        daemon.docker("rm", "-f", "sig")


def test_default_mounts_devices_and_masks(daemon: TestDaemon) -> None:
    out = run(daemon, "busybox", "cat", "/proc/self/mounts")
    mounts = {line.split()[1]: line.split() for line in out.splitlines()}
    assert mounts["/"][2] == "overlay"
    for path, kind in {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/sys": "sysfs",
                       "/dev/mqueue": "mqueue", "/dev/shm": "tmpfs"}.items():  # fmt: skip
        assert mounts[path][2] == kind, path
    assert "ro" in mounts["/sys"][3].split(",")
    for path in ("/proc/sys", "/proc/bus", "/proc/irq", "/proc/fs"):
        assert "ro" in mounts[path][3].split(","), path
    listing = run(daemon, "busybox", "ls", "/dev").split()
    expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert set(expected.split()) <= set(listing) <= {*expected.split(), "console", "core"}
    masked = run(
        daemon,
        "busybox",
        "sh",
        "-c",
        "cat /proc/keys /proc/timer_list | wc -c; ls -A /proc/acpi /sys/firmware | grep -vc :",
    )
    assert masked.split()[0] == "0"


def test_inspect_tells_what_was_asked(daemon: TestDaemon) -> None:
    flags = ("-m", "64m", "--cpus", "0.5", "--pids-limit", "32", "--cap-drop", "ALL", "-w", "/tmp")
    daemon.docker("create", "--name", "asked", *flags, "busybox", "true")
    try:
        (document,) = json.loads(daemon.docker("inspect", "asked").stdout)
    finally:
        daemon.docker("rm", "asked")
    host = document["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500000000, 32)
    assert host["CapDrop"] == ["ALL"]
    assert document["Config"]["WorkingDir"] == "/tmp"
    assert (document["State"]["Status"], document["Path"], document["Args"]) == (
        "created",
        "true",
        [],
    )


def test_exec(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "ex", "-e", "A=1", "busybox", "sleep", "600")
    try:
        out = daemon.docker("exec", "-e", "B=2", "-w", "/tmp", "-u", "nobody", "ex", "sh", "-c",
                            "echo $A$B; pwd; id -un; cat", stdin="typed")  # fmt: skip
        assert out.stdout == "12\n/tmp\nnobody\n"
        piped = daemon.docker("exec", "-i", "ex", "cat", stdin="typed")
        assert piped.stdout == "typed"
        assert daemon.docker("exec", "ex", "sh", "-c", "exit 9", check=False).returncode == 9
        missing = daemon.docker("exec", "ex", "no-such-program", check=False)
        assert missing.returncode in (126, 127)
        assert "executable file not found" in missing.stdout + missing.stderr
        assert daemon.docker("exec", "-d", "ex", "touch", "/made").returncode == 0
        while daemon.docker("exec", "ex", "ls", "/made", check=False).returncode:
            pass
    finally:
        daemon.docker("rm", "-f", "ex")


def test_an_environment_of_half_a_megabyte(daemon: TestDaemon, tmp_path: Path) -> None:
    values = {f"LONG_{number}": "x" * 50_000 for number in range(10)}
    file = tmp_path / "environment"
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    tell = ("--env-file", str(file), "busybox", "sh", "-c", "env | grep ^LONG | sort; sleep 60")
    expected = file.read_text()
    daemon.docker("run", "-d", "--name", "long", *tell)
    try:
        wait_until(lambda: daemon.docker("logs", "long").stdout == expected, "not all was told")
        inside = daemon.docker("exec", "--env-file", str(file), "long", "sh", "-c",
                               "env | grep ^LONG | sort").stdout  # fmt: skip
        assert inside == expected
        neighbour = ("--pid", "container:long", "--env-file", str(file), "busybox")
        assert run(daemon, *neighbour, "sh", "-c", "env | grep ^LONG | sort") == expected
    finally:
        daemon.docker("rm", "-f", "long")
