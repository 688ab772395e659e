"""cais-runtime as a program, for kernel tests: a bundle, a state directory, commands."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from cais.testing.bundles import Bundle
from cais.testing.isolation import PATIENCE, isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = "import sys; from cais.runtime.command import main; sys.exit(main())"


class Runtime:
    def __init__(self, tmp_path: Path) -> None:
        (tmp_path / "bundle").mkdir()
        self.bundle = Bundle(tmp_path / "bundle")
        self.root = tmp_path / "state"
        self.pid_file = tmp_path / "pid"
        self.id = self.bundle.id

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, "--root", str(self.root), *args]

    def __call__(self, *args: str, code: int | None = 0) -> str:
        done = subprocess.run(
            self.command(*args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
            check=False,
        )
        assert code is None or done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def create(self, *args: str) -> int:
        """Create without keeping our pipes open in the container."""
        self.bundle.save()
        subprocess.run(
            self.command(
                *("create", "-b", str(self.bundle.path), "--pid-file", str(self.pid_file)),
                *args,
                self.id,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60 * PATIENCE,
            check=True,
        )
        return int(self.pid_file.read_text())

    def status(self) -> str:
        status: str = json.loads(self("state", self.id))["status"]
        return status


def with_runtime(tmp_path: Path, body: Callable[[Runtime], None]) -> None:
    isolated(lambda: body(Runtime(tmp_path)), timeout_s=90)
