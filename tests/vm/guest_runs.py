"""A guest booted by one of the two runners, its console shown as the test's own output."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def run_guest(runner: ModuleType, *arguments: str, timeout_s: float) -> str:
    """Run pytest with ``arguments`` in the runner's guest; return what it wrote, all passed.

    Blocks: until the guest has ended, or been ended after ``timeout_s``.
    """
    assert runner.__file__ is not None
    done = subprocess.run(
        [sys.executable, runner.__file__, *arguments], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        timeout=timeout_s, check=False,
    )  # fmt: skip
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, "failures in the guest: its console is shown below"
    assert " passed" in done.stdout
    return done.stdout
