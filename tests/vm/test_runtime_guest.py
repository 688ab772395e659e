"""The runtime on Linux 6.1 with cgroup v2 alone: clone into a cgroup, overlay without lowerdir+."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("linux.uml") is None, reason="needs linux.uml (Debian: user-mode-linux)"
)
TESTS = ("test_start.py", "test_exec.py", "test_user_namespaces.py")
CHOSEN = "alone or overlay or exact or terminal or every_namespace or pause or reach"


def test_containers_on_a_v2_host_with_an_older_kernel() -> None:
    runner = Path(__file__).with_name("run_uml.py")
    tests = [f"tests/kernel/runtime/{name}" for name in TESTS]
    done = subprocess.run(
        [sys.executable, runner, *tests, "-k", CHOSEN],
        capture_output=True,
        text=True,
        timeout=320,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
