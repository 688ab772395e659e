"""The kernel tests of ``guest_tests.txt``, on a host with systemd, cgroup v2 alone and AppArmor."""

from __future__ import annotations

import os

import pytest
import run_qemu
from guest_runs import run_guest

IS_QUICK = os.environ.get("CAIS_VM") == "quick"
LIMIT_S = run_qemu.DEADLINE_S + 900  # and the guest may have to be built


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.skipif(bool(run_qemu.missing()), reason=f"no virtual machine: {run_qemu.missing()}")
def test_the_kernel_tests_on_a_host_with_systemd() -> None:
    output = run_guest(run_qemu, *(["--quick"] if IS_QUICK else []), timeout_s=LIMIT_S)
    # What the guest is there for must have been tried.
    assert "needs systemd" not in output
    assert "needs AppArmor" not in output
