"""The daemon dies, the containers do not: kill -9, restart, a second daemon, an upgrade."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from cais.testing.daemon import BIN, TestDaemon
from cais.testing.waiting import PATIENCE_S, wait_until

Fresh = Callable[..., TestDaemon]


def test_kill_of_the_daemon_loses_nothing(fresh_daemon: Fresh, tmp_path: Path) -> None:
    daemon = fresh_daemon()
    count = "i=0; while [ ! -e /stop ]; do echo $i; i=$((i + 1)); sleep 0.01; done; exit 9"
    daemon.docker("run", "-d", "--name", "survivor", "busybox", "sh", "-c", count)
    wait = f"until [ -e {tmp_path}/go ]; do usleep 10000; done; exit 4"
    gate = ("-v", f"{tmp_path}:{tmp_path}")
    daemon.docker("run", "-d", "--name", "ends-meanwhile", *gate, "busybox", "sh", "-c", wait)
    pid = daemon.docker("inspect", "-f", "{{.State.Pid}}", "survivor").stdout
    log = Path(daemon.docker("inspect", "-f", "{{.LogPath}}", "survivor").stdout.strip())
    daemon.kill()
    written = log.stat().st_size
    (tmp_path / "go").touch()
    wait_until(lambda: log.stat().st_size > written)
    wait_until(lambda: not any("exit 4" in line for line in daemon.processes().values()))
    daemon.start()
    assert daemon.docker("ps", "--format", "{{.Names}}").stdout == "survivor\n"
    assert daemon.docker("inspect", "-f", "{{.State.Pid}}", "survivor").stdout == pid
    state = "{{.State.Status}} {{.State.ExitCode}}"
    assert daemon.docker("inspect", "-f", state, "ends-meanwhile").stdout == "exited 4\n"
    daemon.docker("exec", "survivor", "touch", "/stop", check=False)  # it may be killed with it
    assert daemon.docker("wait", "survivor").stdout == "9\n"
    lines = daemon.docker("logs", "survivor").stdout.split()
    assert lines == [str(index) for index in range(len(lines))]


def test_stop_works_after_a_restart(fresh_daemon: Fresh) -> None:
    daemon = fresh_daemon()
    daemon.docker("run", "-d", "--name", "quay", "--init", "busybox", "sleep", "600")
    daemon.restart()
    daemon.docker("stop", "-t", "50", "quay")
    assert daemon.docker("inspect", "-f", "{{.State.ExitCode}}", "quay").stdout in ("143\n", "0\n")
    daemon.docker("start", "quay")
    assert daemon.docker("exec", "quay", "echo", "again").stdout == "again\n"
    daemon.docker("rm", "-f", "quay")
    assert not daemon.docker("ps", "-aq").stdout


def test_a_created_container_and_its_image_survive(fresh_daemon: Fresh) -> None:
    daemon = fresh_daemon()
    daemon.docker("create", "--name", "later", "busybox", "echo", "finally")
    daemon.kill()
    daemon.start()
    assert daemon.docker("start", "-a", "later").stdout == "finally\n"


def test_two_daemons_on_one_data_root(fresh_daemon: Fresh) -> None:
    daemon = fresh_daemon(load=False)
    second = daemon.run_inside(
        [str(BIN / "caisd"), "-H", f"unix://{daemon.directory}/second.sock",
         "--data-root", str(daemon.data_root), "--exec-root", str(daemon.directory / "exec2"),
         "--pidfile", str(daemon.directory / "second.pid")],
        check=False,
    )  # fmt: skip
    assert second.returncode not in (0, 124)
    assert str(daemon.data_root) in second.stderr + second.stdout
    assert "Traceback" not in second.stderr
    assert daemon.docker("ps").returncode == 0


def test_the_shim_is_one_process(fresh_daemon: Fresh) -> None:
    daemon = fresh_daemon()
    for index in range(5):
        daemon.docker("run", "-d", "--name", f"p{index}", "busybox", "sleep", "600")
    lines = list(daemon.processes().values())
    assert sum("sleep 600" in line for line in lines) == 5
    assert len(lines) == 5 + 2, lines  # caisd and its shim
    daemon.docker("rm", "-f", *(f"p{index}" for index in range(5)))


def test_attached_clients_end_cleanly_when_the_daemon_dies(fresh_daemon: Fresh) -> None:
    daemon = fresh_daemon()
    daemon.docker("run", "-d", "--name", "quay", "busybox", "sleep", "600")
    descriptors = daemon.descriptor_count()
    client = subprocess.Popen(
        ["docker", "wait", "quay"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=daemon.environment,
    )
    wait_until(lambda: daemon.descriptor_count() > descriptors, "it does not connect")
    daemon.kill()
    _, said = client.communicate(timeout=PATIENCE_S)
    assert client.returncode != 0, said
    daemon.start()
    daemon.docker("rm", "-f", "quay")
