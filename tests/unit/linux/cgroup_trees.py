"""Fake cgroup trees: directories whose files appear with mkdir, as the kernel's do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cais.linux.cgroups import Hierarchy, files

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

V1_FILES = {
    "cpu": {
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "-1",
        "cpu.cfs_burst_us": "0",
        "cpu.rt_period_us": "1000000",
        "cpu.rt_runtime_us": "0",
        "cpu.idle": "0",
    },
    "memory": {
        "memory.limit_in_bytes": "9223372036854771712",
        "memory.memsw.limit_in_bytes": "9223372036854771712",
        "memory.soft_limit_in_bytes": "9223372036854771712",
        "memory.swappiness": "60",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    },
    "cpuset": {"cpuset.cpus": "", "cpuset.mems": ""},
    "pids": {"pids.max": "max", "pids.current": "2"},
    "devices": {"devices.list": "a *:* rwm\n", "devices.allow": "", "devices.deny": ""},
    "freezer": {"freezer.state": "THAWED"},
    "blkio": {
        f"blkio.throttle.{name}": ""
        for name in ("read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device")
    },
}
V2_FILES = {
    "cgroup.controllers": "cpuset cpu io memory pids",
    "cgroup.subtree_control": "",
    "cgroup.freeze": "0",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.kill": "",
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.weight": "100",
    "cpu.idle": "0",
    "cpuset.cpus": "",
    "cpuset.mems": "",
    "io.max": "",
    "io.weight": "default 100",
    "memory.max": "max",
    "memory.low": "0",
    "memory.swap.max": "max",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\n",
    "pids.max": "max",
}


class FakeTree:
    """A hierarchy in a directory, and the writes made to it, in order."""

    def __init__(
        self, root: Path, hierarchy: Hierarchy, templates: dict[str, dict[str, str]]
    ) -> None:
        self.root = root
        self.hierarchy = hierarchy
        self.writes: list[tuple[str, str]] = []
        self._templates = templates

    def populate(self, directory: str) -> None:
        relative = Path(directory).relative_to(self.root).parts
        for name, text in self._templates[relative[0]].items():
            Path(directory, name).write_text(text)
        for name in ("cgroup.procs", "tasks"):
            Path(directory, name).write_text("")


def patched(tree: FakeTree, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTree]:
    make, write, rmdir = files.make_directory, files.write, os.rmdir

    def remove_directory(path: str) -> None:
        for entry in os.scandir(path):
            os.unlink(entry)  # a cgroup's files go with it
        rmdir(path)

    def make_directory(path: str) -> bool:
        made = make(path)
        if made:
            tree.populate(path)
        return made

    def recording_write(path: str, *values: str) -> None:
        tree.writes += [(Path(path).name, value) for value in values]
        if Path(path).exists():
            Path(path).write_text(values[-1])
        else:
            write(path, *values)

    monkeypatch.setattr(files, "make_directory", make_directory)
    monkeypatch.setattr(files, "write", recording_write)
    monkeypatch.setattr("os.rmdir", remove_directory)
    yield tree


def v1_tree(root: Path) -> FakeTree:
    for name in V1_FILES:
        (root / name).mkdir()
    (root / "cpuset/cpuset.cpus").write_text("0-3")
    (root / "cpuset/cpuset.mems").write_text("0")
    hierarchy = Hierarchy({name: str(root / name) for name in V1_FILES}, None)
    return FakeTree(root, hierarchy, V1_FILES)


def v2_tree(root: Path) -> FakeTree:
    unified = root / "unified"
    unified.mkdir()
    for name in ("cgroup.controllers", "cgroup.subtree_control", "cgroup.procs"):
        (unified / name).write_text(V2_FILES.get(name, ""))
    controllers = frozenset(V2_FILES["cgroup.controllers"].split())
    return FakeTree(root, Hierarchy({}, str(unified), controllers), {"unified": V2_FILES})
