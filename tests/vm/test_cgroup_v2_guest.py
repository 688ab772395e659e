"""The kernel tests of control groups, on a host that has cgroup v2 alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("linux.uml") is None, reason="needs linux.uml (Debian: user-mode-linux)"
)


def test_control_groups_on_a_v2_host() -> None:
    runner = Path(__file__).with_name("run_uml.py")
    done = subprocess.run(
        [sys.executable, runner], capture_output=True, text=True, timeout=320, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
