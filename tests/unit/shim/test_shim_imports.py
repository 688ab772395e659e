"""The shim stays small: what it imports is known, and nothing is imported once it serves."""

import subprocess
import sys
from pathlib import Path

import cais

SOURCE = str(Path(cais.__file__).parent.parent)
FORBIDDEN = {
    *("argparse", "asyncio", "dataclasses", "inspect", "logging", "msgspec", "pathlib"),
    *("subprocess", "tempfile", "typing", "threading", "urllib", "http", "email", "random"),
}


def test_the_import_closure_has_nothing_heavy() -> None:
    code = f"import sys; sys.path.insert(0, {SOURCE!r}); import cais.shim.main; print(*sys.modules)"
    listing = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in listing.stdout.split()}
    assert loaded & FORBIDDEN == set()
    third_party = loaded - set(sys.stdlib_module_names) - {"cais", "__main__"}
    assert {name for name in third_party if not name.startswith("_")} == set()
