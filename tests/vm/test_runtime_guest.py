"""The runtime on Linux 6.1 with cgroup v2 alone: clone into a cgroup, overlay without lowerdir+."""

from __future__ import annotations

import shutil

import pytest
import run_uml
from guest_runs import run_guest

pytestmark = pytest.mark.skipif(
    shutil.which(run_uml.KERNEL) is None, reason="needs linux.uml (Debian: user-mode-linux)"
)
TESTS = ("test_start.py", "test_exec.py", "test_user_namespaces.py")
CHOSEN = "alone or overlay or exact or terminal or every_namespace or pause or reach"


def test_containers_on_a_v2_host_with_an_older_kernel() -> None:
    tests = [f"tests/kernel/runtime/{name}" for name in TESTS]
    run_guest(run_uml, *tests, "-k", CHOSEN, timeout_s=run_uml.DEADLINE_S + 20)
