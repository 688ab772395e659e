"""P4, P6, P7: the processes of the engine: who forks, what they import, what they weigh."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from security_daemon import MaskedDaemon, connected, public_directory, running, shim_pid

from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
GROWTH_LIMIT_BYTES = 64 << 10
# What runs once the interpreter is the sealed one, or caisd's own.
POISONED = (
    *("json", "fcntl", "select", "ctypes", "socket", "traceback", "asyncio", "msgspec", "cais"),
    *("usercustomize", "sqlite3", "h11", "subprocess", "logging", "termios"),
)
TELL = (
    "import os as _os\n"
    "_fd = _os.open({log!r}, _os.O_WRONLY | _os.O_APPEND | _os.O_CREAT, 0o666)\n"
    "_os.write(_fd, ({name!r} + ' ' + _os.readlink('/proc/self/exe') + '\\n').encode())\n"
    "_os.close(_fd)\nraise ImportError('poison')\n"
)


def status(pid: int, field: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return text.split(f"{field}:\t")[1].split("\n")[0]


def test_only_the_shim_has_children_and_it_has_one_thread(daemon: TestDaemon) -> None:
    """P4: caisd, which has threads, forks nothing for a container, not even for a moment."""
    shim = shim_pid(daemon)
    log = daemon.directory / "forks"
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-qq", "-p", str(daemon.pid), "-o", str(log)),
            *("-e", "trace=clone,clone3,fork,vfork"),
        ],
        stderr=subprocess.PIPE,
    )
    try:
        while status(daemon.pid, "TracerPid") == "0":
            assert tracer.poll() is None, "strace could not attach"
            time.sleep(0.01)
        with connected(daemon) as client, running(client, "sleep", "60") as container:
            container.exec_run(["true"])
            container.reload()
            inside = container.attrs["State"]["Pid"]  # in the daemon's pid namespace
            assert inside in children_inside(daemon, shim)
            assert len(os.listdir(f"/proc/{shim}/task")) == 1
            assert Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text() == ""
        assert len(os.listdir(f"/proc/{shim}/task")) == 1
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=PATIENCE_S)
    calls = [line for line in log.read_text().splitlines() if re.search(r"fork|clone", line)]
    assert [call for call in calls if "CLONE_THREAD" not in call and "resumed" not in call] == []
    log.unlink()


def children_inside(daemon: TestDaemon, pid: int) -> list[int]:
    """Return the children of a process, as numbered in the daemon's pid namespace."""
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    depth = len(status(daemon.pid, "NSpid").split())
    return [int(status(int(child), "NSpid").split()[depth - 1]) for child in listing]


def test_many_clients_at_once_leave_no_hung_child(daemon: TestDaemon) -> None:
    """P4: 32 starts in parallel, asked for by 32 threads; none waits for a lock it inherited."""
    script = "docker run --rm busybox true & " * 32 + "wait"
    daemon.run_client(["sh", "-c", script], timeout_s=PATIENCE_S)
    left = [name for name in daemon.processes().values() if name.startswith("true")]
    assert left == []


def poison(directory: Path, log: Path) -> None:
    directory.mkdir()
    log.touch()
    log.chmod(0o666)
    for name in POISONED:
        (directory / f"{name}.py").write_text(TELL.format(name=name, log=str(log)))
    user_site = directory / f".local/lib/python3.{sys.version_info[1]}/site-packages"
    user_site.mkdir(parents=True)
    (user_site / "evil.pth").write_text(f"import sys; open({str(log)!r}, 'a').write('pth')\n")


def test_a_hostile_environment_and_directory_decide_no_import(busybox_tar: bytes) -> None:
    """P6: caisd and its shim are started by somebody whose directory and environment are poison."""
    with public_directory() as directory:
        evil, log = directory / "evil", directory / "log"
        poison(evil, log)
        hostile = {
            "PYTHONSTARTUP": str(evil / "json.py"),
            "PYTHONUSERBASE": str(evil / ".local"),
            "PYTHONINSPECT": "1",
            "HOME": str(evil),
        }
        # caisd's first interpreter, before it starts itself isolated, has the caller's search path
        # and imports next to nothing: what the second one imports must not come from there.
        (late := directory / "late").mkdir()
        for name in ("sqlite3", "h11", "msgspec"):
            shutil.copy(evil / f"{name}.py", late)
        hostile["PYTHONPATH"] = str(late)
        (directory / "d").mkdir()
        with MaskedDaemon(
            directory / "d", environment=hostile, working_directory=str(evil)
        ) as daemon:
            daemon.docker("load", stdin=busybox_tar)
            daemon.docker("run", "--rm", "busybox", "true")
            shim = shim_pid(daemon)
            words = Path(f"/proc/{shim}/cmdline").read_bytes().split(b"\0")
            assert words[1:4] == [b"-I", b"-S", b"-B"]
            assert b"PYTHON" not in Path(f"/proc/{shim}/environ").read_bytes()
            assert os.readlink(f"/proc/{shim}/cwd") == "/"
        assert log.read_text() == ""


def test_a_hostile_search_path_does_not_reach_the_sealed_runtime(tmp_path: Path) -> None:
    """P6: what starts cais-runtime may have any PYTHONPATH; the process that is cloned has none."""

    def body() -> None:
        evil, log = tmp_path / "evil", tmp_path / "log"
        poison(evil, log)
        bundle = Bundle(tmp_path / "bundle")
        (bundle.rootfs / "usr/lib/python3/dist-packages").mkdir(parents=True)
        (bundle.rootfs / "usr/lib/python3/dist-packages/json.py").write_text("poison\n")
        bundle.process["args"] = ["env"]
        bundle.save()
        # The last of the path: the caller's own imports are its own affair, ours are not.
        code = (
            "import sys; from cais.runtime.command import main; import os; "
            "os.environ['PYTHONPATH'] = sys.argv.pop(1); sys.exit(main())"
        )
        done = subprocess.run(
            [
                *(sys.executable, "-c", code, str(evil), "--root", str(tmp_path / "state"), "run"),
                *("-b", str(bundle.path), bundle.id),
            ],
            cwd=evil.parent,
            env={**os.environ, "PYTHONSTARTUP": str(evil / "json.py"), "HOME": str(evil)},
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        )
        assert log.read_text() == ""
        assert "PYTHON" not in done.stdout  # the container's environment is its document's
        assert list(tmp_path.rglob("*.pyc")) == []

    isolated(body)


def test_no_bytecode_is_written_where_containers_look(daemon: TestDaemon) -> None:
    """P6: modules in an image are never compiled by us, and no root of ours gets a cache."""
    script = "mkdir -p /usr/lib/python3.11 && echo 1 > /usr/lib/python3.11/json.py && sleep 60"
    with connected(daemon) as client, running(client, "sh", "-c", script) as container:
        container.exec_run(["true"])
        container.top()
        container.logs()
        for root in (daemon.data_root, daemon.exec_root):
            assert [*root.rglob("*.pyc"), *root.rglob("__pycache__")] == []


def test_a_container_weighs_little_in_the_shim(daemon: TestDaemon) -> None:
    """P7: one shim for all; what it keeps of a container is less than 64 KiB."""
    shim, count = shim_pid(daemon), 24
    with connected(daemon) as client:
        warm = client.containers.run("busybox", ["sleep", "600"], detach=True)
        before = proportional_bytes(shim)
        made = []
        try:
            for _ in range(count):
                made += [client.containers.run("busybox", ["sleep", "600"], detach=True)]
            growth = (proportional_bytes(shim) - before) / count
        finally:
            for container in [warm, *made]:
                container.remove(force=True)
    assert growth < GROWTH_LIMIT_BYTES


def proportional_bytes(pid: int) -> int:
    """Return a process's private memory and its part of what it shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("\nPss:")[1].split()[0]) << 10
