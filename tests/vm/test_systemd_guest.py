"""The kernel tests of ``guest_tests.txt``, on a host with systemd, cgroup v2 alone and AppArmor."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import run_qemu

IS_QUICK = os.environ.get("CAIS_VM") == "quick"
LIMIT_S = run_qemu.DEADLINE_S + 900  # and the guest may have to be built


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.skipif(bool(run_qemu.missing()), reason=f"no virtual machine: {run_qemu.missing()}")
def test_the_kernel_tests_on_a_host_with_systemd() -> None:
    command = [sys.executable, run_qemu.__file__, *(["--quick"] if IS_QUICK else [])]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        check=False, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    # What the guest is there for must have been tried.
    assert "needs systemd" not in done.stdout
    assert "needs AppArmor" not in done.stdout
