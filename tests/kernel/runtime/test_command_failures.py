"""Kernel tests of cais-runtime's commands that fail, are killed or meet another one half-way."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest
from command_kit import Runtime, with_runtime

from cais.runtime import state, verbs
from cais.runtime.verbs import ending
from cais.testing.isolation import cgroups_named
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SLEEP = ["sleep", "86400"]


def test_a_container_whose_state_cannot_be_written_is_ended(tmp_path: Path) -> None:
    """Another ``delete`` takes the half-made directory away: there is no place for the state."""

    def body(runtime: Runtime) -> None:
        directory, pid_file = runtime.root / runtime.id, tmp_path / "hooked"
        script = f'sed "s/.*\\"pid\\": *//; s/[^0-9].*//" > {pid_file}; rm -r {directory}'
        runtime.bundle.config["hooks"] = {
            "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]
        }
        runtime.bundle.process["args"] = SLEEP
        runtime.bundle.save()
        for verb in (["create"], ["run", "-d"]):
            refused = runtime(*verb, "-b", str(runtime.bundle.path), runtime.id, code=1)
            assert "no such file or directory" in refused
            assert not os.path.exists(f"/proc/{pid_file.read_text().strip()}")
            assert not cgroups_named(runtime.id)

    with_runtime(tmp_path, body)


def test_a_start_that_was_killed_when_it_was_ready_is_deleted(tmp_path: Path) -> None:
    """The container's process waits for ``start``; nothing but the document tells of it."""

    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = SLEEP
        for flags, code in (([], 1), (["--force"], 0)):
            pid = runtime.create()
            (runtime.root / runtime.id / "state.json").unlink()
            said = runtime("delete", *flags, runtime.id, code=code)
            assert ("does not exist" in said) == bool(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            assert not cgroups_named(runtime.id)
            assert not (runtime.root / runtime.id).exists()

    with_runtime(tmp_path, body)


def test_a_group_that_is_another_containers_outlives_a_killed_start(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = SLEEP
        runtime.bundle.linux["cgroupsPath"] = f"/cais/{runtime.id}"
        pid = runtime.create()
        half = runtime.root / "half"
        half.mkdir()
        (half / "config.json").write_bytes((runtime.bundle.path / "config.json").read_bytes())
        runtime("delete", "half", code=1)
        assert not half.exists()
        assert runtime.status() == "created"
        runtime("delete", "--force", runtime.id)
        os.waitpid(pid, 0)

    with_runtime(tmp_path, body)


ENDS_THIS_MOMENT = """\
import os, sys
from cais.runtime import verbs
from cais.runtime.state import Record

def status(record):
    os.kill(record.pid, 9)
    while record.is_alive():
        continue
    return "running"

Record.status = status
sys.exit(verbs.run(sys.argv[1:]))
"""


def test_a_container_that_ends_while_it_is_deleted_by_force_is_deleted(tmp_path: Path) -> None:
    """Between the question whether it runs and the signal it ends, and may even be reaped."""

    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = SLEEP
        pid = runtime.create()
        program, code, _, *words = runtime.command("delete", "--force", runtime.id)
        deleted = subprocess.run(
            [program, code, ENDS_THIS_MOMENT, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        os.waitpid(pid, 0)
        assert (deleted.returncode, deleted.stderr) == (0, "")
        assert runtime("list", "-q") == ""
        assert not cgroups_named(runtime.id)

    with_runtime(tmp_path, body)


@pytest.mark.parametrize("detached", [True, False], ids=["detached", "in-front"])
@pytest.mark.parametrize("flag", ["--pid-file", "--pidfd-socket"])
def test_an_exec_of_which_nobody_can_be_told_is_ended(
    tmp_path: Path, flag: str, *, detached: bool
) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = SLEEP
        pid = runtime.create()
        runtime("start", runtime.id)
        flags = ["--detach", flag] if detached else [flag]
        log = tmp_path / "log"
        command = runtime.command("--log", str(log), "exec", *flags, "/nonexistent/x", runtime.id)
        # No pipes of ours: who is not ended would keep them open.
        null = subprocess.DEVNULL
        assert subprocess.call([*command, *SLEEP], stdin=null, stdout=null, stderr=null) == 255
        assert "no such file or directory" in log.read_text()
        assert json.loads(runtime("ps", "-f", "json", runtime.id)) == [pid]
        runtime("delete", "--force", runtime.id)
        os.waitpid(pid, 0)

    with_runtime(tmp_path, body)


def test_a_terminal_whose_output_nobody_takes_holds_nothing_up(tmp_path: Path) -> None:
    """``run ... | head -1``: the program goes on, and so does whoever waits for its end."""

    def body(runtime: Runtime) -> None:
        script = "trap '' PIPE; stty raw; echo first; dd if=/dev/zero bs=1000 count=1000; exit 3"
        runtime.bundle.process.update(terminal=True, args=["sh", "-c", script])
        runtime.bundle.save()
        command = runtime.command("run", "-b", str(runtime.bundle.path), runtime.id)
        master_fd, slave_fd = pty.openpty()
        with subprocess.Popen(
            command, stdin=slave_fd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            assert running.stdout.readline() == b"first\n"
            running.stdout.close()
            assert running.stderr.read() == b""
            assert running.wait(PATIENCE_S) == 3
        os.close(master_fd)
        os.close(slave_fd)
        assert runtime("list", "-q") == ""
        assert not cgroups_named(runtime.id)

    with_runtime(tmp_path, body)


def test_a_terminal_goes_to_an_output_that_does_not_block(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        script = "stty raw; dd if=/dev/zero bs=1000 count=1000 2>/dev/null; exit 3"
        runtime.bundle.process.update(terminal=True, args=["sh", "-c", script])
        runtime.bundle.save()
        command = runtime.command("run", "-b", str(runtime.bundle.path), runtime.id)
        master_fd, slave_fd = pty.openpty()
        read_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)  # full after what a terminal gives at once
        with (
            open(read_fd, "rb") as output,
            subprocess.Popen(command, stdin=slave_fd, stdout=write_fd, stderr=slave_fd) as running,
        ):
            os.close(write_fd)
            wait_until(lambda: pending(output.fileno()))
            assert output.read() == bytes(1_000_000)
            assert running.wait(PATIENCE_S) == 3
        os.close(master_fd)
        os.close(slave_fd)

    with_runtime(tmp_path, body)


def pending(fd: int) -> int:
    """Return how many bytes can be read."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_terminal_that_is_gone_keeps_nothing_from_being_cleaned_up(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        script = "trap '' HUP; echo ready; read line; exit 3"
        runtime.bundle.process.update(terminal=True, args=["sh", "-c", script])
        runtime.bundle.save()
        command = runtime.command("run", "-b", str(runtime.bundle.path), runtime.id)
        master_fd, slave_fd = pty.openpty()
        with subprocess.Popen(
            command, stdin=slave_fd, stdout=slave_fd, stderr=subprocess.PIPE
        ) as running:
            os.close(slave_fd)
            assert running.stderr is not None
            while b"ready" not in os.read(master_fd, 1000):
                continue
            os.close(master_fd)
            runtime("kill", runtime.id, "KILL")
            assert running.stderr.read() == b""
            assert running.wait(PATIENCE_S) == 128 + signal.SIGKILL
        assert runtime("list", "-q") == ""

    with_runtime(tmp_path, body)


@pytest.mark.parametrize("name", ["IO", "PWR", "USR1", "VTALRM", "STKFLT", "34", "64"])
def test_every_signal_is_passed_to_the_program(tmp_path: Path, name: str) -> None:
    def body(runtime: Runtime) -> None:
        number = int(name) if name.isdigit() else int(getattr(signal, f"SIG{name}"))
        script = f"trap 'exit 6' {number}; echo ready; while :; do sleep 0.02; done"
        runtime.bundle.process["args"] = ["sh", "-c", script]
        runtime.bundle.save()
        command = runtime.command("run", "-b", str(runtime.bundle.path), runtime.id)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            running.send_signal(number)
            assert running.wait(PATIENCE_S) == 6
        assert runtime("list", "-q") == ""

    with_runtime(tmp_path, body)


def two_processes(runtime: Runtime) -> int:
    """Start a container whose two processes end by any signal; return the first's pid."""
    linux = runtime.bundle.linux
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "pid"]
    script = "sleep 86400 & echo >/both; exec sleep 86400"
    runtime.bundle.process["args"] = ["sh", "-c", script]
    pid = runtime.create()
    runtime("start", runtime.id)
    wait_until((runtime.bundle.rootfs / "both").exists)
    return pid


def in_this_process(runtime: Runtime, *words: str) -> int:
    """Run a command that the test has changed something of."""
    return verbs.run(["--root", str(runtime.root), *words])


def test_all_processes_are_signalled_while_they_stand_still(tmp_path: Path) -> None:
    """Otherwise one that is born meanwhile would be missed."""

    def body(runtime: Runtime) -> None:
        pid = two_processes(runtime)
        group = state.load(str(runtime.root), runtime.id).group()
        stood_still = []

        def send(pidfd: int, number: int) -> None:
            stood_still.append(group.is_frozen())
            signal.pidfd_send_signal(pidfd, number)

        ending.pidfd_send_signal = send  # type: ignore[assignment]
        # One that ends nobody: on cgroup v2 a group is not frozen while a process of it ends.
        assert in_this_process(runtime, "kill", "--all", runtime.id, "WINCH") == 0
        assert stood_still == [True, True]
        runtime("kill", "--all", runtime.id, "TERM")
        codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in (pid, -1)]
        assert codes == [-signal.SIGTERM, -signal.SIGTERM]
        runtime("delete", runtime.id)

    with_runtime(tmp_path, body)


def test_a_paused_container_whose_processes_are_signalled_stays_paused(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = two_processes(runtime)
        runtime("pause", runtime.id)
        try:
            # On cgroup v2 one that ends a process ends it frozen, too.
            runtime("kill", "--all", runtime.id, "WINCH")
            assert runtime.status() == "paused"
        finally:  # a frozen process outlives every attempt to clean up
            runtime("resume", runtime.id)
            runtime("kill", "--all", runtime.id, "KILL")
            os.waitpid(pid, 0)
            os.wait()
        runtime("delete", runtime.id)

    with_runtime(tmp_path, body)


def test_a_number_that_became_anothers_is_not_signalled(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = two_processes(runtime)
        with subprocess.Popen(SLEEP) as stranger:
            pids, opened = state.Record.pids, []
            pidfd_open = os.pidfd_open

            def open_and_note(number: int, flags: int = 0) -> int:
                opened.append(number)
                return pidfd_open(number, flags)

            def pids_and_an_old_one(record: state.Record) -> list[int]:
                old = [] if stranger.pid in opened else [stranger.pid]
                return [*pids(record), *old]

            os.pidfd_open = open_and_note
            state.Record.pids = pids_and_an_old_one  # type: ignore[method-assign]
            assert in_this_process(runtime, "kill", "--all", runtime.id, "TERM") == 0
            os.waitpid(pid, 0)
            stranger.kill()
            assert stranger.wait(PATIENCE_S) == -signal.SIGKILL
        os.wait()
        runtime("delete", runtime.id)

    with_runtime(tmp_path, body)
