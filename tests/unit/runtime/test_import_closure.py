"""P1, P7: what the process that becomes a container has imported, as an allow-list.

The command imports the same: ``re``, ``enum`` and their like cost more than a start.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
ALLOWED = frozenset(
    {
        *("__future__", "_collections_abc", "_ctypes", "_json", "_signal", "_socket", "_stat"),
        *("_struct", "abc", "binascii", "codecs", "ctypes", "encodings", "errno", "fcntl", "gc"),
        *("genericpath", "io", "os", "posix", "posixpath", "resource", "select", "stat", "struct"),
        *("sys", "termios", "time", "types"),
    }
)
CODE = (
    "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]);"
    "import cais.runtime.{};"
    "print(*sorted({{name.split('.')[0] for name in set(sys.modules) - before}}))"
)


@pytest.mark.parametrize("module", ["container", "verbs"])
def test_the_runtime_imports_little(module: str) -> None:
    command = [sys.executable, "-I", "-S", "-c", CODE.format(module), SOURCE]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(output.stdout.split()) - ALLOWED == {"cais"}
