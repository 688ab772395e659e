"""Mutated ``config.json`` documents: each a clean error or a right container, nothing left.

``CAIS_FUZZ_DOCUMENTS`` says how many (the default is the short form), ``CAIS_FUZZ_SEED`` the first
one's number; a fault is reported with the number of its document.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from cais.testing.isolation import PATIENCE, cgroups_named, isolated

_RUNNER = Path(__file__).with_name("config_runner.py")
_FEW = 300  # documents of which nobody can tell what they hold
_APART = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("--propagation", "private"),
)


@pytest.mark.timeout(0)  # it is as long as it is told to be, and bounds its runner
def test_mutated_documents_are_refused_or_right() -> None:
    count = int(os.environ.get("CAIS_FUZZ_DOCUMENTS", "3000"))
    seed = int(os.environ.get("CAIS_FUZZ_SEED", "0"))
    timeout_s = 60 + count / 6
    name = f"fuzz-{secrets.token_hex(3)}"  # others may be at it

    def body() -> None:
        result = subprocess.run(
            [*_APART, sys.executable, "-B", _RUNNER, str(seed), str(count), name],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s * PATIENCE,
        )
        assert result.stdout, result.stderr
        report = json.loads(result.stdout)
        assert not report["faults"], "\n".join(report["faults"])
        assert sum(report["outcomes"].values()) == count
        assert report["outcomes"]["started"] > count / 10  # else it tests the parser alone
        done = {"exec done", "exec refused", "update done", "update refused"}
        assert set(report["commands"]) == done or count < _FEW
        assert not cgroups_named(name)

    # Its mounts are compared, those of a namespace where nobody else mounts anything.
    isolated(body, timeout_s=timeout_s + 60)
