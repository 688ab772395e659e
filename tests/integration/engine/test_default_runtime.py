"""The default runtime: of new containers only, and changed by SIGHUP as in dockerd."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cais.testing.daemon import TestDaemon


def runtime_of(daemon: TestDaemon, name: str) -> str:
    return daemon.docker("inspect", "--format", "{{.HostConfig.Runtime}}", name).stdout.strip()


def default_of(daemon: TestDaemon) -> str:
    return daemon.docker("info", "--format", "{{.DefaultRuntime}}").stdout.strip()


def test_a_container_keeps_the_runtime_it_was_created_with(
    fresh_daemon: Callable[..., TestDaemon], tmp_path: Path
) -> None:
    file = tmp_path / "daemon.json"
    runtimes = {"mine": {"path": "runc"}}
    file.write_text(json.dumps({"runtimes": runtimes, "default-runtime": "mine"}))
    daemon = fresh_daemon("--config-file", str(file))
    assert default_of(daemon) == "mine"
    daemon.docker("run", "--name", "first", "busybox", "echo", "one")
    assert (daemon.exec_root / "runtimes/mine").is_dir()
    file.write_text(json.dumps({"runtimes": runtimes}))
    pid = (daemon.directory / "caisd.pid").read_text().strip()
    daemon.run_inside(["kill", f"-{int(signal.SIGHUP)}", pid])
    wait_until(lambda: default_of(daemon) == "cais")
    daemon.docker("run", "--name", "second", "busybox", "true")
    assert [runtime_of(daemon, name) for name in ("first", "second")] == ["mine", "cais"]
    daemon.docker("start", "-a", "first")
    assert daemon.docker("logs", "first").stdout == "one\none\n"
    file.write_text("{}")
    daemon.restart()
    lost = daemon.docker("start", "first", check=False)
    assert "unknown or invalid runtime name: mine" in lost.stderr
    daemon.docker("rm", "first", "second")
