"""Kernel tests of cais-runtime's commands that fail, are killed or meet another one half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from command_kit import Runtime, with_runtime

from cais.testing.isolation import cgroups_named

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
