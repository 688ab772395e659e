"""The tests of ``guest_tests.txt``, on hosts with systemd, cgroup v2 alone and AppArmor."""

from __future__ import annotations

import os

import pytest
import run_qemu
from guest_runs import run_guests

MACHINES = [run_qemu.QUICK] if os.environ.get("CAIS_VM") == "quick" else run_qemu.machines()
LIMIT_S = run_qemu.DEADLINE_S + 900  # and the guest may have to be built


@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.skipif(bool(run_qemu.missing()), reason=f"no virtual machine: {run_qemu.missing()}")
def test_the_kernel_tests_on_a_host_with_systemd() -> None:
    run_qemu.build()  # once, not by all of them at the same time
    commands = [[f"{run_qemu.MACHINE}{name}"] for name in MACHINES]
    output = "".join(run_guests(run_qemu, commands, timeout_s=LIMIT_S))
    # What the guest is there for must have been tried.
    assert "needs systemd" not in output
    assert "needs AppArmor" not in output
