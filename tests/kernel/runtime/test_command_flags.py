"""Kernel tests of cais-runtime's rarer flags and commands: descriptors, groups, events, limits."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_kit import PROGRAM, Runtime, with_runtime
from peers import BOTH
from probes import write_probe

from cais.linux.cgroups import detect
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLEEP = ["sleep", "60"]


def sleeping(runtime: Runtime, *args: str) -> int:
    """Start a container, see that it sleeps, and return its pid."""
    runtime.bundle.process["args"] = SLEEP
    pid = runtime.create(*args)
    runtime("start", runtime.id)
    wait_until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def end(runtime: Runtime, pid: int) -> None:
    runtime("delete", "--force", runtime.id)
    os.waitpid(pid, 0)


def output(command: Sequence[str], fds: Sequence[int] = (), **env: str) -> str:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        pass_fds=fds,
        env={**os.environ, **env},
    ).stdout


def third_descriptor(text: bytes) -> int:
    """Open a file of ``text`` as descriptor 3, where a caller's additional descriptors begin."""
    fd = os.memfd_create("given")
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    if fd != 3:
        os.dup2(fd, 3)
        os.close(fd)
    return 3


def test_descriptors_are_given_on(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        saved_fd = os.dup(3)  # whatever the test run has there
        try:
            pid = sleeping(runtime)
            show = ("sh", "-c", "cat <&3; echo ,$LISTEN_FDS,$LISTEN_PID; ls /proc/self/fd | wc -l")
            command = runtime.command("exec", "--preserve-fds", "1", runtime.id, *show)
            assert output(command, [third_descriptor(b"given")]).split() == ["given,,", "5"]
            command = runtime.command("exec", runtime.id, *show)
            third_descriptor(b"given")
            assert output(command, [3], LISTEN_FDS="1").split() == ["given,1,1", "5"]
            third_descriptor(b"given")
            command = runtime.command("exec", runtime.id, "ls", "/proc/self/fd")
            assert "3" not in output(command, [3]).split()[:3]
            end(runtime, pid)
            runtime.bundle.process["args"] = ["sh", "-c", "cat <&3"]
            runtime.bundle.save()
            words = ("--preserve-fds", "1", "-b", str(runtime.bundle.path), runtime.id)
            third_descriptor(b"at the start")
            assert output(runtime.command("run", *words), [3]) == "at the start"
        finally:
            os.dup2(saved_fd, 3)
            os.close(saved_fd)

    with_runtime(tmp_path, body)


def test_a_descriptor_that_is_not_open_is_refused(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.save()
        words = ("--preserve-fds", "2", "-b", str(runtime.bundle.path), runtime.id)
        assert "unable to stat preserved-fd 0 (of 2)" in runtime("run", *words, code=1)
        assert runtime("list", "-q") == ""

    with_runtime(tmp_path, body)


def test_the_pidfd_goes_to_its_socket(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        path = str(tmp_path / "pidfd")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            pid = sleeping(runtime, "--pidfd-socket", path)
            connection, _ = listener.accept()
            _, fds, _, _ = socket.recv_fds(connection, 100, 1)
            connection.close()
        assert f"Pid:\t{pid}\n" in Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
        os.close(fds[0])
        end(runtime, pid)

    with_runtime(tmp_path, body)


def test_who_cannot_be_told_stops_the_start(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = SLEEP
        runtime.bundle.save()
        for flag in ("--pid-file", "--pidfd-socket"):
            words = ("-d", "-b", str(runtime.bundle.path), flag, "/nonexistent/x", runtime.id)
            assert "no such file or directory" in runtime("run", *words, code=1)
            assert runtime("list", "-q") == ""

    with_runtime(tmp_path, body)


@pytest.mark.parametrize("name", BOTH)
def test_relative_paths_are_those_of_the_caller(tmp_path: Path, name: str) -> None:
    """Whatever directory the bundle is in; a prepared link in the pid file's way is not followed.

    A console socket's is another case: both look for it in the bundle.
    """

    def body() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle", name)
        bundle.linux["cgroupsPath"] = f"/cais/{bundle.id}"
        bundle.process["args"] = SLEEP
        bundle.save()
        own = ["runc"] if name == "runc" else [sys.executable, "-c", PROGRAM]
        own += ["--root", "state", "--log", "log"]

        def command(*words: str) -> int:
            done = subprocess.run(
                [*own, *words, bundle.id],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=PATIENCE_S,
                check=False,
            )
            return done.returncode

        (tmp_path / "precious").write_text("whole")
        (tmp_path / ".pid").symlink_to("precious")
        assert command("create", "-b", "bundle", "--pid-file", "pid") == 1
        assert (tmp_path / "precious").read_text() == "whole"
        assert "/.pid: file exists" in (tmp_path / "log").read_text()
        (tmp_path / ".pid").unlink()
        assert command("create", "-b", "bundle", "--pid-file", "pid") == 0
        assert (tmp_path / "state" / bundle.id).is_dir()
        pid = int((tmp_path / "pid").read_text())
        assert command("delete", "--force") == 0
        os.waitpid(pid, 0)
        assert sorted(os.listdir(bundle.path)) == ["config.json", "rootfs"]
        assert sorted(os.listdir(tmp_path)) == ["bundle", "log", "pid", "precious", "state"]

    isolated(body, timeout_s=90)


def test_the_hosts_root_is_no_place_for_the_state(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.root = Path("/")
        assert "should not be set to /" in runtime("list", code=1)

    with_runtime(tmp_path, body)


def test_a_root_without_pivot(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = ["sh", "-c", "ls -d /bin /home /.. ; pwd"]
        runtime.bundle.process["cwd"] = "/bin"
        runtime.bundle.save()
        command = runtime.command("run", "--no-pivot", "-b", str(runtime.bundle.path), runtime.id)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["/..", "/bin", "/bin"]

    with_runtime(tmp_path, body)


def test_the_bundle_may_change_after_create(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = SLEEP
        runtime.bundle.config["annotations"] = {"when": "created"}
        pid = runtime.create()
        (runtime.bundle.path / "config.json").write_text("no document any more")
        runtime("start", runtime.id)
        assert json.loads(runtime("state", runtime.id))["annotations"] == {"when": "created"}
        assert runtime("exec", runtime.id, "echo", "alive") == "alive\n"
        runtime("update", "--pids-limit", "30", runtime.id)
        end(runtime, pid)

    with_runtime(tmp_path, body)


def places_of(pid: int) -> Iterator[tuple[str, Path]]:
    """Yield the controllers and the directory of each group a process is in."""
    hierarchy = detect()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        mount = hierarchy.unified if not names else hierarchy.mounts.get(names.split(",")[0])
        if mount and path != "/" and Path(f"{mount}{path}/cgroup.procs").exists():
            yield names, Path(f"{mount}{path}")


def test_exec_into_a_group_below(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = sleeping(runtime)
        below = [directory / "part" for _, directory in places_of(pid)]
        for directory in below:
            directory.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if detect().version == 1 and (directory / name).exists():
                    (directory / name).write_text((directory.parent / name).read_text())
        lines = runtime("exec", "--cgroup", "part", runtime.id, "cat", "/proc/self/cgroup")
        assert "/part\n" in lines
        refused = runtime("exec", "--cgroup", "../part", runtime.id, "true", code=255)
        assert "bad sub cgroup path: ../part" in refused
        refused = runtime("exec", "--cgroup", "nope:part", runtime.id, "true", code=255)
        assert "unknown controller nope" in refused
        if detect().version == 1:
            words = ("exec", "--cgroup", "pids:part", runtime.id, "cat", "/proc/self/cgroup")
            inside = [line for line in runtime(*words).splitlines() if line.endswith("/part")]
            assert [line.split(":")[1] for line in inside] == ["pids"]
        end(runtime, pid)

    with_runtime(tmp_path, body)


def test_a_paused_container_can_be_killed(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = sleeping(runtime)
        runtime("pause", runtime.id)
        assert runtime.status() == "paused"
        runtime("kill", runtime.id, "KILL")
        try:
            wait_until(lambda: runtime.status() == "stopped", "still frozen")
        finally:  # a frozen process outlives every attempt to clean up
            runtime("resume", runtime.id, code=None)
            os.waitpid(pid, 0)
        runtime("delete", runtime.id)

    with_runtime(tmp_path, body)


def test_a_start_that_was_killed_leaves_what_delete_removes(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        (runtime.root / "half").mkdir(parents=True)
        (runtime.root / "half/config.json").write_text("{}")
        assert "already exists" in runtime("create", "-b", str(saved(runtime)), "half", code=1)
        assert "does not exist" in runtime("delete", "half", code=1)
        assert not (runtime.root / "half").exists()

    with_runtime(tmp_path, body)


def saved(runtime: Runtime) -> Path:
    runtime.bundle.save()
    return runtime.bundle.path


@pytest.mark.skipif("memory" not in detect().controllers, reason="needs the memory controller")
def test_events_tell_counters_and_kills(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        limits = {"limit": 16 << 20, "swap": 16 << 20}
        runtime.bundle.linux["resources"] = {"memory": limits, "pids": {"limit": 20}}
        pid = sleeping(runtime)
        stats = json.loads(runtime("events", "--stats", runtime.id))
        assert (stats["type"], stats["id"]) == ("stats", runtime.id)
        assert stats["data"]["pids"] == {"current": 1, "limit": 20}
        assert stats["data"]["memory"]["usage"]["limit"] == 16 << 20
        command = runtime.command("events", "--interval", "100ms", runtime.id)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["type"] == "stats"
            runtime("exec", runtime.id, "sh", "-c", "tail /dev/zero", code=137)
            while (event := json.loads(events.stdout.readline()))["type"] == "stats":
                continue
            assert event == {"type": "oom", "id": runtime.id}
            end(runtime, pid)
            events.stdout.read()
            assert events.wait(PATIENCE_S) == 0

    with_runtime(tmp_path, body)


def test_limits_from_a_document(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = sleeping(runtime)
        document = tmp_path / "limits"
        document.write_text(json.dumps({"pids": {"limit": 17}}))
        runtime("update", "-r", str(document), runtime.id)
        stats = json.loads(runtime("events", "--stats", runtime.id))
        assert stats["data"]["pids"]["limit"] == 17
        document.write_text('{"pids": {"limit": "many"}}')
        assert "resources.pids.limit" in runtime("update", "-r", str(document), runtime.id, code=1)
        end(runtime, pid)

    with_runtime(tmp_path, body)


def test_what_ps_prints(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = sleeping(runtime)
        header, *lines = runtime("ps", runtime.id).splitlines()
        assert header.split()[:2] == ["UID", "PID"]
        assert len(lines) == 1
        assert re.search(rf"^\S+ +{pid} .*sleep 60$", lines[0])
        end(runtime, pid)

    with_runtime(tmp_path, body)


KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, -1)
GET_ID, JOIN, SET_PERMISSIONS, SESSION, ALL = 0, 1, 5, -3, 0x3F3F0000


def session_keyring() -> int:
    return int(ctypes.CDLL(None).syscall(KEYCTL, GET_ID, SESSION, 0))


@pytest.mark.parametrize("flags", [(), ("--no-new-keyring",)], ids=["own", "callers"])
@pytest.mark.parametrize("way", ["run", "create"])
def test_the_session_keyring(tmp_path: Path, way: str, flags: tuple[str, ...]) -> None:
    """A keyring that the caller made is the container's with --no-new-keyring, and only then."""

    def body(runtime: Runtime) -> None:
        # Nameless: joining by a name may find the keyring of a test before, permissions and all.
        assert ctypes.CDLL(None).syscall(KEYCTL, JOIN, None) > 0
        mine = session_keyring()
        # Only who possesses a keyring may change its permissions.
        write_probe(runtime.bundle.rootfs / "bin/sees", KEYCTL, SET_PERMISSIONS, mine, ALL)
        runtime.bundle.process["args"] = ["sh", "-c", "/bin/sees; echo $? >/seen"]
        runtime.bundle.save()
        if way == "run":
            runtime("run", "-b", str(runtime.bundle.path), *flags, runtime.id)
        else:
            pid = runtime.create(*flags)
            runtime("start", runtime.id)
            os.waitpid(pid, 0)
            runtime("delete", runtime.id)
        seen = int((runtime.bundle.rootfs / "seen").read_text())
        assert seen == (0 if flags else errno.EACCES)

    with_runtime(tmp_path, body)


def test_a_container_that_may_open_no_file_is_started(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 0, "hard": 128}]
        end(runtime, sleeping(runtime))

    with_runtime(tmp_path, body)


ORPHAN = """\
until read -r _ _ _ now _ </proc/self/stat && [ "$now" != "$1" ]; do sleep 0.02; done
echo "$now" >/found; mv /found /parent
"""


@pytest.mark.parametrize("flags", [(), ("--no-subreaper",)], ids=["adopts", "leaves"])
def test_who_gets_the_orphans(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """In the host's pid namespace an orphan goes to the runtime, or to the subreaper above it."""

    def body(runtime: Runtime) -> None:
        linux = runtime.bundle.linux
        linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "pid"]
        (runtime.bundle.rootfs / "orphan").write_text(ORPHAN)
        script = "sh -c 'sh /orphan $$ &'; until [ -e /parent ]; do sleep 0.02; done"
        runtime.bundle.process["args"] = ["sh", "-c", script]
        runtime.bundle.save()
        command = runtime.command("run", "-b", str(runtime.bundle.path), *flags, runtime.id)
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        assert running.wait(60) == 0
        parent = int((runtime.bundle.rootfs / "parent").read_text())
        assert parent == (os.getpid() if flags else running.pid)
        with contextlib.suppress(ChildProcessError):
            while True:  # the orphan and what it had begun, where the runtime did not see the end
                os.waitpid(-1, 0)

    with_runtime(tmp_path, body)
