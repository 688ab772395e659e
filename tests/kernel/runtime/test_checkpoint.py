"""Kernel tests of checkpoint and restore by CRIU: a container goes on where it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cais.testing.bundles import Bundle
from cais.testing.criu import why_not
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = "from cais.runtime.command import main; main()"
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/count; sleep 0.05; done"


REASON = why_not()
pytestmark = pytest.mark.timeout(600)  # CRIU works in an emulated machine, if slowly
works = pytest.mark.skipif(bool(REASON), reason=REASON)


class Runtime:
    """cais-runtime on a bundle that counts in a file."""

    def __init__(self, tmp_path: Path) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # CRIU tries a socket on it
        (tmp_path / "bundle").mkdir()
        self.bundle = Bundle(tmp_path / "bundle")
        self.bundle.process["args"] = ["sh", "-c", COUNT]
        self.bundle.save()
        self.id = self.bundle.id
        self.root = tmp_path / "state"
        self.images = tmp_path / "images"

    def __call__(self, *words: str, code: int = 0) -> str:
        with open(self.bundle.path / "output", "w+") as output:
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, "--root", self.root, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=100,
                check=False,
            )
            output.seek(0)
            text = output.read()
        assert done.returncode == code, text
        return text

    def start(self) -> int:
        with open(os.devnull, "r+b") as null:
            subprocess.run(
                [
                    *(sys.executable, "-c", PROGRAM, "--root", self.root),
                    *("run", "-d", "-b", self.bundle.path, self.id),
                ],
                stdin=null,
                stdout=null,
                stderr=null,
                timeout=60,
                check=True,
            )
        return self.pid()

    def pid(self) -> int:
        pid: int = json.loads(self("state", self.id))["pid"]
        return pid

    def count(self) -> int:
        return int((self.bundle.rootfs / "count").read_text() or 0)

    def counts_past(self, number: int) -> None:
        wait_until(lambda: self.count() > number, f"it does not count past {number}")

    def end(self, pid: int) -> None:
        self("kill", self.id, "KILL")
        os.waitpid(pid, 0)
        self("delete", self.id)


def with_runtime(tmp_path: Path, body: Callable[[Runtime], None]) -> None:
    # CRIU mounts cgroup2 for itself, which changes what the mount table says of the host's.
    isolated(lambda: body(Runtime(tmp_path)), timeout_s=500, leftovers=False)


@works
def test_a_container_goes_on_where_it_was(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = runtime.start()
        runtime.counts_past(2)
        runtime("checkpoint", "--image-path", str(runtime.images), runtime.id)
        os.waitpid(pid, 0)
        assert "does not exist" in runtime("state", runtime.id, code=1)
        reached = runtime.count()
        images = ("--image-path", str(runtime.images), "-b", str(runtime.bundle.path))
        runtime("restore", "-d", *images, "--pid-file", str(tmp_path / "pid"), runtime.id)
        restored = runtime.pid()
        assert int((tmp_path / "pid").read_text()) == restored
        runtime.counts_past(reached)  # a new start would begin with 1
        assert runtime("exec", runtime.id, "hostname") == "box\n"
        runtime.end(restored)

    with_runtime(tmp_path, body)


@works
def test_a_container_is_left_running(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = runtime.start()
        runtime("checkpoint", "--leave-running", "--image-path", str(runtime.images), runtime.id)
        assert (runtime.images / "inventory.img").exists()
        runtime.counts_past(runtime.count())
        runtime.end(pid)

    with_runtime(tmp_path, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_failure_is_told_and_leaves_the_container_alone(tmp_path: Path) -> None:
    def body(runtime: Runtime) -> None:
        pid = runtime.start()
        images = ("--image-path", str(runtime.images))
        told = runtime("--criu", "/nonexistent", "checkpoint", *images, runtime.id, code=1)
        assert "checkpoint and restore need CRIU" in told
        if shutil.which("criu") and REASON:
            told = runtime("checkpoint", *images, runtime.id, code=1)
            assert "criu dump failed: " in told
            assert "dump.log" in told
        assert json.loads(runtime("state", runtime.id))["status"] == "running"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert "cannot be checkpointed in stopped state" in runtime(
            "checkpoint", *images, runtime.id, code=1
        )
        runtime("delete", runtime.id)

    with_runtime(tmp_path, body)
