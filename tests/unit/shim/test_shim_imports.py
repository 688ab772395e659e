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


LATE_IMPORTS = """
import ast, sys
sys.path.insert(0, {source!r})
import cais.shim.main
late = set()
for module in [each for name, each in sys.modules.items() if name.startswith("cais.")]:
    tree = ast.parse(open(module.__file__).read())
    inner = [node for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)
             for node in ast.walk(each) if isinstance(node, ast.ImportFrom)]
    for node in inner:
        names = [f"{{node.module}}.{{alias.name}}" for alias in node.names]
        late.add(node.module)
        late.update(name for name in names if name in sys.modules)
from cais.shim import preload
preload.load()
print(*sorted(name for name in late if name.startswith("cais.") and name not in sys.modules))
"""


def test_nothing_of_ours_is_imported_once_it_serves() -> None:
    code = LATE_IMPORTS.format(source=SOURCE)
    listing = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert listing.stdout.split() == []
