"""The same bundle under our runtime and under runc, so that a wrong test shows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from cais.testing.peers import installed
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.bundles import Bundle

PROGRAM = "import sys; from cais.runtime.command import main; sys.exit(main())"
BOTH = ["cais", "runc"]


class Peer:
    """A runtime as a command; every path of its own lies below ``directory``."""

    def __init__(self, name: str, bundle: Bundle, directory: Path) -> None:
        self.name = name
        self.bundle = bundle
        self.id = f"{name}-{os.getpid()}"
        self._command = [installed("runc")] if name == "runc" else [sys.executable, "-c", PROGRAM]
        self._command += ["--root", str(directory / f"state-{name}")]
        bundle.linux["cgroupsPath"] = f"/cais/{self.id}"

    def __call__(self, *args: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command; with ``ok`` it must succeed."""
        done = subprocess.run(
            [*self._command, *args],
            cwd=self.bundle.path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or not ok, done.stderr
        return done

    def run(self, *args: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the bundle to its end."""
        if args:
            self.bundle.process["args"] = list(args)
        self.bundle.save()
        return self("run", self.id, ok=ok)

    def create(self) -> None:
        """Create it, without our pipes: the container would keep them open."""
        self.bundle.save()
        subprocess.run(
            [*self._command, "create", self.id],
            cwd=self.bundle.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=True,
        )
