"""Finding the hierarchies in a mount table, and what they can limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux.cgroups import clean_path, parse_hierarchy
from cais.linux.cgroups.features import probe

if TYPE_CHECKING:
    from pathlib import Path

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""


def test_v1_controllers_share_a_mount() -> None:
    hierarchy = parse_hierarchy(V1)
    assert (hierarchy.kind, hierarchy.version) == ("v1", 1)
    assert hierarchy.controllers == {"cpu", "cpuacct", "memory"}
    assert hierarchy.mounts["cpu"] == hierarchy.mounts["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert hierarchy.mounts["name=systemd"] == "/sys/fs/cgroup/systemd"
    assert hierarchy.unified is None


def test_hybrid_limits_through_v1(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    hierarchy = parse_hierarchy(V1 + f"41 31 0:38 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    assert (hierarchy.kind, hierarchy.version) == ("hybrid", 1)
    assert hierarchy.unified == str(tmp_path)
    assert hierarchy.unified_controllers == {"hugetlb"}
    assert "hugetlb" not in hierarchy.controllers


def test_v2_alone(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    hierarchy = parse_hierarchy(f"41 31 0:38 / {tmp_path} rw - cgroup2 cgroup2 rw,nsdelegate\n")
    assert (hierarchy.kind, hierarchy.version) == ("v2", 2)
    assert hierarchy.controllers == {"cpuset", "cpu", "io", "memory", "pids"}


def test_v2_beside_a_bare_named_hierarchy_is_v2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    table = (
        f"1 2 0:1 / /s rw - cgroup cgroup rw,name=systemd\n3 2 0:2 / {tmp_path} rw - cgroup2 c rw\n"
    )
    assert parse_hierarchy(table).kind == "v2"


def test_a_whole_mount_is_preferred_to_a_part() -> None:
    table = (
        "1 2 0:1 /docker/x /part rw - cgroup cgroup rw,memory\n"
        "3 2 0:1 / /with\\040space rw - cgroup cgroup rw,memory\n"
    )
    assert parse_hierarchy(table).mounts["memory"] == "/with space"


def test_nothing_mounted() -> None:
    with pytest.raises(UnsupportedError, match="no cgroup hierarchy"):
        parse_hierarchy("31 23 0:28 / / rw - ext4 /dev/x rw,cpu\n")


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/cais/x", "/cais/x"),
        ("cais//x/", "/cais/x"),
        ("/a/./b", "/a/b"),
        ("/../../../etc", "/etc"),
        ("/a/b/../../../c", "/c"),
        ("../x", "/x"),
    ],
)
def test_paths_stay_below_the_root(path: str, clean: str) -> None:
    assert clean_path(path) == clean


@pytest.mark.parametrize("path", ["", "/", "/..", "a/..", "/a\nb", "/a\0b", "/" + "x" * 256])
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        clean_path(path)


def test_features_of_v1_are_files(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "blkio", "cpuset", "pids"):
        (tmp_path / name).mkdir()
    present = ("cpu/cpu.shares", "memory/memory.limit_in_bytes", "blkio/blkio.bfq.weight")
    for name in present:
        (tmp_path / name).touch()
    (tmp_path / "cpuset/cpuset.cpus").write_text("0-3\n")
    table = "".join(
        f"1 2 0:{number} / {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n"
        for number, name in enumerate(("cpu", "memory", "blkio", "cpuset", "pids"))
    )
    features = probe(parse_hierarchy(table))
    assert (features.memory_limit, features.swap_limit) == (True, False)
    assert (features.cpu_shares, features.cpu_cfs_quota, features.cpu_realtime) == (
        True,
        False,
        False,
    )
    assert (features.blkio_weight, features.blkio_weight_device) == (True, False)
    assert (features.cpuset, features.cpuset_cpus, features.pids_limit) == (True, "0-3", True)
    assert features.cgroup_devices is False


def test_features_of_v2_are_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    group = tmp_path / "init.scope"
    group.mkdir()
    (group / "memory.max").touch()
    hierarchy = parse_hierarchy(f"41 31 0:38 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    features = probe(hierarchy)
    assert (features.memory_limit, features.pids_limit, features.cpu_cfs_quota) == (
        True,
        True,
        True,
    )
    assert features.swap_limit is False  # swap accounting is off: no group has the file
    assert (features.blkio_weight, features.cpuset, features.oom_kill_disable) == (False,) * 3
    assert (features.memory_swappiness, features.cpu_realtime, features.cgroup_devices) == (
        *(False, False),
        True,
    )
    (group / "memory.swap.max").touch()
    assert probe(hierarchy).swap_limit is True
