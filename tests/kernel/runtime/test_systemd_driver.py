"""``cais-runtime --systemd-cgroup``: a container's life in a scope of systemd's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cais.linux.cgroups import detect
from cais.linux.cgroups.systemd_manager import is_running
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not is_running() or detect().version != 2, reason="needs systemd and cgroup v2 alone"
)
PROGRAM = "import sys; from cais.runtime.command import main; sys.exit(main())"


class Runtime:
    """One container of cais-runtime, driven as an engine does."""

    def __init__(self, path: Path) -> None:
        (path / "bundle").mkdir()
        self.bundle = Bundle(path / "bundle", "driver")
        self.state = path / "state"
        self.id = self.bundle.id

    def __call__(self, *args: str, code: int = 0, systemd: bool = True) -> str:
        self.bundle.save()
        flags = ["--root", str(self.state), *(["--systemd-cgroup"] if systemd else [])]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *flags, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def start(self) -> None:
        """Create and start, with nothing of ours held open by the container."""
        self.bundle.save()
        flags = ["--root", str(self.state), "--systemd-cgroup"]
        for verb in (["create", "-b", str(self.bundle.path)], ["start"]):
            null = subprocess.DEVNULL
            command = [sys.executable, "-c", PROGRAM, *flags, *verb, self.id]
            subprocess.run(
                command, stdin=null, stdout=null, stderr=null, timeout=PATIENCE_S, check=True
            )


def in_runtime(path: Path, body: Callable[[Runtime], None]) -> None:
    isolated(lambda: body(Runtime(path)), timeout_s=300)


def state_of(unit: str) -> str:
    return subprocess.check_output(
        ["systemctl", "show", "-P", "ActiveState", unit], text=True
    ).strip()


def test_the_life_of_a_container(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        scope = f"box-{runtime.id}.scope"
        runtime.bundle.linux["cgroupsPath"] = f"cais-test.slice:box:{runtime.id}"
        runtime.bundle.linux["resources"] = {"pids": {"limit": 50}}
        runtime.bundle.process["args"] = ["sleep", "600"]
        runtime.start()
        assert state_of(scope) == "active"
        pid = json.loads(runtime("state", runtime.id, systemd=False))["pid"]
        # Nobody else is in it: the holder of the start is gone.
        assert json.loads(runtime("ps", "--format", "json", runtime.id, systemd=False)) == [pid]
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            group = file.read().strip().removeprefix("0::")
        assert group.endswith(f"/{scope}")
        runtime("pause", runtime.id, systemd=False)
        assert json.loads(runtime("state", runtime.id))["status"] == "paused"
        runtime("resume", runtime.id, systemd=False)
        runtime("update", "--pids-limit", "20", "--memory", "33554432", runtime.id, systemd=False)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        for name, value in (("pids.max", "20"), ("memory.max", "33554432")):
            with open(f"/sys/fs/cgroup{group}/{name}", encoding="ascii") as file:
                assert file.read().strip() == value
        runtime("delete", "--force", runtime.id, systemd=False)
        os.waitpid(pid, 0)  # it became ours when the command that made it ended
        assert state_of(scope) == "inactive"
        assert not os.path.exists(f"/sys/fs/cgroup{group}")

    in_runtime(tmp_path, body)


def test_a_document_without_a_group_gets_one_of_the_default_name(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.linux.pop("cgroupsPath", None)
        runtime.bundle.process["args"] = ["sleep", "600"]
        runtime.start()
        assert state_of(f"cais-{runtime.id}.scope") == "active"
        pid = json.loads(runtime("state", runtime.id))["pid"]
        runtime("delete", "--force", runtime.id, systemd=False)
        os.waitpid(pid, 0)
        assert state_of(f"cais-{runtime.id}.scope") == "inactive"

    in_runtime(tmp_path, body)


def test_run_ends_with_its_scope(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.linux["cgroupsPath"] = f"system.slice:box:{runtime.id}"
        runtime.bundle.process["args"] = ["sh", "-c", "exit 7"]
        runtime("run", "-b", str(runtime.bundle.path), runtime.id, code=7)
        assert state_of(f"box-{runtime.id}.scope") == "inactive"

    in_runtime(tmp_path, body)


def test_a_program_that_is_not_there_leaves_no_scope(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.linux["cgroupsPath"] = f"system.slice:box:{runtime.id}"
        runtime.bundle.process["args"] = ["/no/such/program"]
        runtime("run", "-b", str(runtime.bundle.path), runtime.id, code=1)
        assert state_of(f"box-{runtime.id}.scope") == "inactive"

    in_runtime(tmp_path, body)


def test_a_path_is_refused(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        runtime.bundle.linux["cgroupsPath"] = "/some/where"
        said = runtime("run", "-b", str(runtime.bundle.path), runtime.id, code=1)
        assert "expected cgroupsPath to be of format" in said
        assert "for systemd cgroups, got '/some/where' instead" in said

    in_runtime(tmp_path, body)
