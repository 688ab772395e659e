"""The kernel tests of control groups, on a host that has cgroup v2 alone."""

from __future__ import annotations

import shutil

import pytest
import run_uml
from guest_runs import run_guest

pytestmark = pytest.mark.skipif(
    shutil.which(run_uml.KERNEL) is None, reason="needs linux.uml (Debian: user-mode-linux)"
)


def test_control_groups_on_a_v2_host() -> None:
    run_guest(run_uml, timeout_s=run_uml.DEADLINE_S + 20)
