"""Kernel tests of cais-runtime as a program: life of a container, terminals, runc's habits."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

from command_kit import Runtime, with_runtime

from cais.testing.bundles import read_terminal
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path


def test_the_life_of_a_container(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = ["sleep", "86400"]
        pid = runtime.create()
        assert runtime.status() == "created"
        assert "already exists" in runtime(
            "create", "-b", str(runtime.bundle.path), runtime.id, code=1
        )
        runtime("start", runtime.id)
        assert runtime.status() == "running"
        assert "cannot start an already running container" in runtime("start", runtime.id, code=1)
        assert "sleep 86400" in runtime("exec", runtime.id, "ps")
        assert runtime(
            "exec",
            "-e",
            "X=1",
            "--cwd",
            "/etc",
            "-u",
            "7:8",
            runtime.id,
            "sh",
            "-c",
            "pwd; echo $X; id -u; id -g; exit 5",
            code=5,
        ).split() == [
            "/etc",
            "1",
            "7",
            "8",
        ]
        assert "executable file not found" in runtime("exec", runtime.id, "nosuch", code=255)
        assert json.loads(runtime("ps", "-f", "json", runtime.id)) == [pid]
        runtime("pause", runtime.id)
        assert runtime.status() == "paused"
        runtime("resume", runtime.id)
        runtime("update", "--pids-limit", "9", runtime.id)
        assert runtime.id in runtime("list")
        assert "not stopped: running" in runtime("delete", runtime.id, code=1)
        runtime("kill", runtime.id, "KILL")
        os.waitpid(pid, 0)
        assert runtime.status() == "stopped"
        assert "container not running" in runtime("kill", runtime.id, code=1)
        runtime("delete", runtime.id)
        assert "container does not exist" in runtime("state", runtime.id, code=1)
        runtime("delete", "--force", runtime.id)

    with_runtime(tmp_path, body)


def test_run_in_the_foreground_passes_output_code_and_signals(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = ["sh", "-c", "echo out; echo err >&2; exit 4"]
        runtime.bundle.save()
        output = runtime("run", "-b", str(runtime.bundle.path), runtime.id, code=4)
        assert output == "out\nerr\n"
        script = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done"
        runtime.bundle.process["args"] = ["sh", "-c", script]
        runtime.bundle.save()
        command = runtime.command("run", "-b", str(runtime.bundle.path), runtime.id)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as done:
            assert done.stdout is not None
            assert done.stdout.readline() == b"ready\n"
            done.send_signal(signal.SIGTERM)
            assert done.wait(PATIENCE_S) == 6
        assert runtime("list", "-q") == ""

    with_runtime(tmp_path, body)


def test_run_with_a_terminal_in_front(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process.update(terminal=True, args=["sh", "-c", "tty; read x; echo $x!"])
        runtime.bundle.save()
        master_fd, slave_fd = pty.openpty()
        command = runtime.command("run", "-b", str(runtime.bundle.path), runtime.id)
        with subprocess.Popen(command, stdin=slave_fd, stdout=slave_fd, stderr=slave_fd) as done:
            os.close(slave_fd)
            seen = b""
            while b"/dev/pts/0" not in seen:
                seen += os.read(master_fd, 1000)
            os.write(master_fd, b"typed\n")
            assert "typed!" in read_terminal(master_fd)
            assert done.wait(PATIENCE_S) == 0
        os.close(master_fd)

    with_runtime(tmp_path, body)


def test_the_terminal_goes_to_the_console_socket(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["terminal"] = True
        runtime.bundle.process["args"] = ["tty"]
        path = tmp_path / "console"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            pid = runtime.create("--console-socket", str(path))
            connection, _ = listener.accept()
            _, fds, _, _ = socket.recv_fds(connection, 100, 1)
            connection.close()
        runtime("start", runtime.id)
        assert read_terminal(fds[0]).strip() == "/dev/pts/0"
        os.close(fds[0])
        os.waitpid(pid, 0)
        runtime("delete", runtime.id)
        runtime.bundle.save()
        assert "cannot allocate tty" in runtime(
            "create", "-b", str(runtime.bundle.path), runtime.id, code=1
        )

    with_runtime(tmp_path, body)


def test_a_failed_start_leaves_no_state(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = ["nosuch"]
        runtime.bundle.save()
        log = tmp_path / "log"
        runtime(
            "--log",
            str(log),
            "--log-format",
            "json",
            "run",
            "-b",
            str(runtime.bundle.path),
            runtime.id,
            code=1,
        )
        message = json.loads(log.read_text())["msg"]
        assert message == (
            "cais-runtime run failed: unable to start container process: "
            'exec: "nosuch": executable file not found in $PATH'
        )
        assert runtime("list", "-q") == ""

    with_runtime(tmp_path, body)


def test_delete_by_force_ends_a_created_and_a_running_container(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.process["args"] = ["sleep", "86400"]
        for started in (False, True):
            pid = runtime.create()
            if started:
                runtime("start", runtime.id)
            runtime("delete", "-f", runtime.id)
            os.waitpid(pid, 0)

    with_runtime(tmp_path, body)


def test_the_example_document_runs(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        directory = runtime.bundle.path
        runtime("spec", "-b", str(directory))
        document = json.loads((directory / "config.json").read_text())
        document["process"] |= {"terminal": False, "args": ["id", "-u"]}
        (directory / "config.json").write_text(json.dumps(document))
        assert runtime("run", "-b", str(directory), runtime.id) == "0\n"
        assert "exists" in runtime("spec", "-b", str(directory), code=1)
        assert json.loads(runtime("features"))["ociVersionMax"] == "1.3.0"

    with_runtime(tmp_path, body)
