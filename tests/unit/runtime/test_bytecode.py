"""The runtime's own finder: what it finds, and what it leaves to the interpreter's."""

import os
import py_compile
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from cais.runtime.bytecode import Finder


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory with a package ``cais`` of one module, both compiled."""
    package = tmp_path / "cais"
    package.mkdir()
    for name, text in (("__init__", "kind = 'package'"), ("module", "kind = __name__")):
        (package / f"{name}.py").write_text(text)
        py_compile.compile(str(package / f"{name}.py"), doraise=True)
    return tmp_path


def loaded(finder: Finder, spec: ModuleSpec | None) -> ModuleType:
    assert spec is not None
    module = ModuleType(spec.name)
    module.__spec__ = spec
    finder.exec_module(module)
    return module


def test_modules_and_packages_are_found(room: Path) -> None:
    finder = Finder(str(room))
    package, module = finder.find_spec("cais"), finder.find_spec("cais.module")
    assert package is not None
    assert package.submodule_search_locations == [str(room / "cais")]
    assert loaded(finder, package).kind == "package"
    assert module is not None
    assert (module.origin, module.parent) == (str(room / "cais/module.py"), "cais")
    assert module.cached == str(next((room / "cais/__pycache__").glob("module.*")))
    assert loaded(finder, module).kind == loaded(finder, finder.find_spec("cais.module")).__name__


def test_what_lies_elsewhere_is_left_to_the_others(room: Path) -> None:
    finder = Finder(str(room))
    assert finder.find_spec("caisson") is None
    assert finder.find_spec("os") is None
    assert finder.find_spec("cais.absent") is None


def touched(source: Path, cached: Path) -> None:
    del cached
    os.utime(source, (1, 1))


def grown(source: Path, cached: Path) -> None:
    del cached
    facts = source.stat()
    source.write_text(source.read_text() + "\n")
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def hashed(source: Path, cached: Path) -> None:
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    py_compile.compile(str(source), str(cached), doraise=True, invalidation_mode=mode)


def of_another_version(source: Path, cached: Path) -> None:
    del source
    cached.write_bytes(b"\0\0\r\n" + cached.read_bytes()[4:])


def cut(source: Path, cached: Path) -> None:
    del source
    cached.write_bytes(cached.read_bytes()[:7])


def gone(source: Path, cached: Path) -> None:
    del source
    cached.unlink()


@pytest.mark.parametrize("change", [touched, grown, hashed, of_another_version, cut, gone])
def test_bytecode_that_may_not_be_of_its_source_is_left(
    room: Path, change: Callable[[Path, Path], None]
) -> None:
    source = room / "cais/module.py"
    cached = room / f"cais/__pycache__/module.{sys.implementation.cache_tag}.pyc"
    change(source, cached)
    assert Finder(str(room)).find_spec("cais.module") is None
