"""What engines read of a runtime: its version, and the reason of a failure in its JSON log.

The same documents under runc; where its words differ between versions, or say less than ours,
only what callers look for is compared.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from cais.testing.daemon import BIN

if os.geteuid() != 0:
    pytest.skip("needs root", allow_module_level=True)

RUNTIMES = [
    pytest.param(
        "runc", marks=pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
    ),
    str(BIN / "cais-runtime"),
]


@pytest.mark.parametrize("program", RUNTIMES)
def test_the_version_and_the_specification_are_told(program: str) -> None:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=60, check=True, cwd="/"
    )
    assert re.match(r"(cais-runtime|runc) version \d+\.\d+\.\d+", done.stdout)
    assert re.search(r"(?m)^spec: \d+\.\d+\.\d+", done.stdout)
    assert done.stderr == ""
