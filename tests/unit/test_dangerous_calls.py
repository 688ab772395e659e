"""P8: what turns data into code is banned by the linter, and the tree has none of it."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/cais"
MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "code", "codeop", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash"}
# What has to be refused -> the rule that does it.
BANNED = {
    "import pickle\npickle.loads(b'')\n": "TID251",
    "import marshal\nmarshal.loads(b'')\n": "TID251",
    "import yaml\nyaml.load('')\n": "S506",
    "eval('1')\n": "S307",
    "exec('1')\n": "S102",
    "import subprocess\nsubprocess.run('x', shell=True)\n": "S602",
    "import os\nos.system('x')\n": "S605",
    "import tarfile\ntarfile.TarFile.extractall('x')\n": "TID251",
}
ROOMS = sorted(
    path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()
)


def findings(tree: ast.AST) -> list[str]:
    """Return what of the banned stands in a module."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [name for name in [node.module or ""] if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in CALLS and not imports_ours(node) else []
            found += [
                f"shell={ast.unparse(keyword.value)}"
                for keyword in node.keywords
                if keyword.arg == "shell" and not is_document(node)
            ]
            found += [ast.unparse(node) for word in node.args if runs_a_shell(word)]
    return found


def imports_ours(call: ast.Call) -> bool:
    """Say whether the call can import nothing but a module of ours (``importlib`` costs time)."""
    named = call.args[0] if call.args else None
    begin = named.values[0] if isinstance(named, ast.JoinedStr) else named
    text = begin.value if isinstance(begin, ast.Constant) else ""
    return ast.unparse(call.func) == "__import__" and str(text).startswith("cais.")


def is_document(call: ast.Call) -> bool:
    """Say whether the call makes a value with a field ``shell``, as an image's configuration is."""
    return ast.unparse(call.func).endswith(("Config", "replace"))


def runs_a_shell(node: ast.expr) -> bool:
    """Say whether an argument is a list like ["sh", "-c", ...]."""
    words = [
        item.value
        for item in getattr(node, "elts", [])
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    ]
    return bool(words) and words[0] in SHELLS and "-c" in words


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "import os\nos.system('x')",
        "run('x', shell=True)",
        "run('x', shell=flag)",
        "run(['sh', '-c', text])",
        "__import__(name)",
        "__import__(f'{name}.cais.')",
    ],
)
def test_the_finder_finds(code: str) -> None:
    assert len(findings(ast.parse(code))) == 1


def test_the_tree_has_none() -> None:
    modules = sorted(SOURCE.rglob("*.py"))
    assert len(modules) > 200
    allowed = {
        # Imports our modules from the files the interpreter would import them from.
        "src/cais/runtime/bytecode.py": ["marshal", "exec"],
        # Between a parent and its clone, never a file.
        "src/cais/runtime/packing.py": ["marshal"],
    }
    found = {
        str(path.relative_to(ROOT)): bad
        for path in modules
        if (bad := findings(ast.parse(path.read_text())))
    }
    assert found == allowed


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "testing"])
def test_the_linter_refuses_them_in_every_room(room: str) -> None:
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    for code, rule in BANNED.items():
        done = subprocess.run(
            [
                *(ruff, "check", "--no-cache", "--output-format", "concise", "--stdin-filename"),
                *(f"src/cais/{room}/probe.py", "-"),
            ],
            input=code,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert f" {rule} " in done.stdout, (code, done.stdout, done.stderr)
