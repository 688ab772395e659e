"""Classes of service (resctrl): no machine of ours has the hardware, so the tree is a directory.

The one thing it lacks is the kernel, which gives a new directory its files; ``Tree`` does.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cais.errors import InvalidArgumentError
from cais.runtime import resctrl
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

DEFAULT = "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Tree:
    """A file system like resctrl: three classes can be made."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / "resctrl"
        self._mkdir = os.mkdir
        self.make(self.root)
        (self.root / "info").mkdir()
        (self.root / "info/last_cmd_status").write_text("ok\n")
        monkeypatch.setattr(resctrl, "find_root", lambda: str(self.root))
        rmdir = os.rmdir

        def make_directory(path: Any, *rest: Any, **options: Any) -> None:
            if not str(path).startswith(str(self.root)):
                self._mkdir(path, *rest, **options)
                return
            self.check_space()
            self.make(Path(path))

        def remove_directory(path: Any, **options: Any) -> None:
            if not str(path).startswith(str(self.root)):
                rmdir(path, **options)
            elif not Path(path).exists():
                raise FileNotFoundError(path)
            else:
                subprocess.run(["rm", "-r", path], check=True)

        monkeypatch.setattr(os, "mkdir", make_directory)
        monkeypatch.setattr(os, "rmdir", remove_directory)

    def check_space(self) -> None:
        if len(list(self.root.iterdir())) >= 7:
            raise OSError(errno.ENOSPC, "No space left on device")

    def make(self, path: Path) -> None:
        self._mkdir(path)
        (path / "tasks").touch()
        if path.parent.name != "mon_groups":
            self._mkdir(path / "mon_groups")
            (path / "schemata").write_text(DEFAULT)

    def classes(self) -> set[str]:
        return {path.name for path in self.root.iterdir()} - {
            *("info", "mon_groups", "tasks", "schemata"),
        }

    def read(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path, monkeypatch)


def of(tree: Tree, **document: object) -> resctrl.ServiceClass:
    return resctrl.ServiceClass("box", document, str(tree.root))


def test_a_class_of_its_own_comes_and_goes(tree: Tree) -> None:
    service_class = of(tree, l3CacheSchema="L3:0=f;1=f\nMB:0=1", memBwSchema="MB:0=20;1=70")
    service_class.make()
    # "the non-MB lines of l3CacheSchema and the line of memBwSchema"
    assert tree.read("box/schemata") == "L3:0=f;1=f\nMB:0=20;1=70\n"
    for fd in service_class.open_tasks():
        os.close(fd)
    service_class.change(["L3:0=1;1=1"])
    assert tree.read("box/schemata") == "L3:0=1;1=1\n"
    service_class.remove()
    service_class.remove()
    assert tree.classes() == set()


def test_a_class_without_a_schema_is_not_written_to(tree: Tree) -> None:
    of(tree).make()
    assert tree.read("box/schemata") == DEFAULT


def test_a_named_class_is_made_once_and_stays(tree: Tree) -> None:
    document: dict[str, Any] = {"closID": "gold", "schemata": ["L3:0=f", "MB:0=070"]}
    of(tree, **document, enableMonitoring=True).make()
    assert tree.read("gold/schemata") == "L3:0=f\nMB:0=070\n"
    assert (tree.root / "gold/mon_groups/box/tasks").exists()

    same = of(tree, closID="gold", memBwSchema="MB:0=70", l3CacheSchema="L3:0=00f")
    same.make()
    assert tree.read("gold/schemata") == "L3:0=f\nMB:0=070\n"  # compared, not written
    with pytest.raises(InvalidArgumentError, match=r"its schemata .* are not \['L3:0=ff'\]"):
        of(tree, closID="gold", l3CacheSchema="L3:0=ff").make()
    with pytest.raises(InvalidArgumentError, match="are not"):
        of(tree, closID="gold", schemata=["L3:7=f"]).make()

    of(tree, **document, enableMonitoring=True).remove()
    assert tree.classes() == {"gold"}
    assert not (tree.root / "gold/mon_groups/box").exists()


def test_a_named_class_without_a_schema_must_be_there(tree: Tree) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no such class of service"):
        of(tree, closID="gold").make()
    of(tree, closID="/", enableMonitoring=True).make()  # everybody's
    assert (tree.root / "mon_groups/box").is_dir()
    of(tree, closID="/", enableMonitoring=True).remove()
    assert not (tree.root / "mon_groups/box").exists()
    assert tree.root.is_dir()


@pytest.mark.parametrize("name", ["a/b", "..", ".", "info", "mon_groups", "a\nb"])
def test_what_is_no_name_of_a_class(tree: Tree, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be a class"):
        of(tree, closID=name)


@pytest.mark.parametrize(
    "document",
    [{"memBwSchema": "L3:0=f"}, {"memBwSchema": "MB:0=1\nL3:0=f"}, {"schemata": ["a\nb"]}],
)
def test_what_is_no_schema(tree: Tree, document: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"linux\.intelRdt\.(memBwSchema|schemata)"):
        of(tree, **document)


def test_a_refusal_of_the_kernel_has_its_words_and_leaves_nothing(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree.root / "info/last_cmd_status").write_text("Mask f000 out of range\n")
    write = os.write

    def refuse(fd: int, data: bytes) -> int:
        if data.startswith(b"L3:"):
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(LaunchError, match=r"schemata: Invalid argument \(Mask f000 out of range\)"):
        of(tree, l3CacheSchema="L3:0=f000").make()
    assert tree.classes() == set()
    for name in ("one", "two", "three"):
        of(tree, closID=name, schemata=["MB:0=10"]).make()
    with pytest.raises(LaunchError, match="No space left"):
        of(tree).make()


@needs_root
def test_a_container_and_its_execs_enter_and_the_class_goes_with_it(
    tmp_path: Path, tree: Tree
) -> None:
    # oci: linux.intelRdt.closID, .schemata, .l3CacheSchema, .memBwSchema, .enableMonitoring
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["intelRdt"] = {"schemata": ["L3:0=f"], "enableMonitoring": True}
        own, counted = f"{bundle.id}/tasks", f"{bundle.id}/mon_groups/{bundle.id}/tasks"
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            assert (tree.read(own), tree.read(counted)) == ("0", "0")  # "the writer"
            (tree.root / own).write_text("")
            assert bundle.execute(init, "true").code == 0
            assert tree.read(own) == "0"
            os.kill(init.pid, 9)
            end(init)
        bundle.destroy()
        assert tree.classes() == set()

    isolated(body)


@needs_root
def test_a_class_that_cannot_be_made_leaves_no_group(tmp_path: Path, tree: Tree) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["intelRdt"] = {"closID": "nowhere"}
        with pytest.raises(InvalidArgumentError, match="no such class"):
            bundle.run("true")
        assert tree.classes() == set()
        assert not list(Path("/sys/fs/cgroup").glob(f"*/cais/{bundle.id}"))

    isolated(body)
