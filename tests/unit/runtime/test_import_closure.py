"""P1, P7: what the process that becomes a container has imported, as an allow-list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"
ALLOWED = frozenset(
    {
        *("__future__", "_bisect", "_blake2", "_collections", "_collections_abc", "_ctypes"),
        *("_datetime", "_functools", "_hashlib", "_json", "_operator", "_signal", "_socket"),
        *("_sre", "_stat", "_struct", "_weakrefset", "abc", "array", "base64", "binascii"),
        *("bisect", "codecs", "collections", "copyreg", "ctypes", "encodings", "enum", "errno"),
        *("fcntl", "functools", "gc", "genericpath", "io", "itertools", "json", "keyword"),
        *("math", "operator", "os", "posix", "posixpath", "re", "reprlib", "resource", "select"),
        *("signal", "stat", "struct", "sys", "termios", "time", "types", "warnings", "zlib"),
    }
)
CODE = (
    "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]);"
    "import cais.runtime.container;"
    "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
)


def test_the_runtime_imports_little() -> None:
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CODE, SOURCE], capture_output=True, text=True, check=True
    )
    assert set(output.stdout.split()) - ALLOWED == {"cais"}
