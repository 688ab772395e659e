"""cgroup v1 on a fake tree: which files get which values, in which order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import cgroup_trees
import pytest
from cgroup_trees import FakeTree

from cais.errors import ConflictError, DeadlineError, InvalidArgumentError
from cais.linux.cgroups import (
    CgroupError,
    Hierarchy,
    UnsupportedLimitError,
    files,
    open_cgroup,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTree]:
    yield from cgroup_trees.patched(cgroup_trees.v1_tree(tmp_path), monkeypatch)


def writes_of(tree: FakeTree, **resources: object) -> list[tuple[str, str]]:
    """Return what ``apply`` writes for these resources."""
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    tree.writes.clear()
    group.apply(resources)  # type: ignore[arg-type]
    return tree.writes


def test_create_makes_the_group_everywhere(tree: FakeTree) -> None:
    open_cgroup(tree.hierarchy, "/cais/x").create({})
    for name in tree.hierarchy.mounts:
        assert (tree.root / name / "cais/x").is_dir()


def test_create_hands_processors_and_nodes_down(tree: FakeTree) -> None:
    open_cgroup(tree.hierarchy, "/cais/x").create({})
    for directory in ("cais", "cais/x"):
        assert (tree.root / "cpuset" / directory / "cpuset.cpus").read_text() == "0-3"
        assert (tree.root / "cpuset" / directory / "cpuset.mems").read_text() == "0"


def test_create_without_device_rules_denies_by_default(tree: FakeTree) -> None:
    open_cgroup(tree.hierarchy, "/cais/x").create({})
    devices = [write for write in tree.writes if write[0].startswith("devices.")]
    assert devices[0] == ("devices.deny", "a")
    assert ("devices.allow", "c 1:3 rwm") in devices
    assert ("devices.allow", "c *:* m") in devices
    assert not any(rule.startswith("a") for name, rule in devices if name == "devices.allow")


def test_an_update_leaves_devices_alone(tree: FakeTree) -> None:
    assert writes_of(tree, pids={"limit": 5}) == [("pids.max", "5")]


def test_a_group_with_processes_is_not_taken_over(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    (tree.root / "pids/cais/x/cgroup.procs").write_text("1\n")
    with pytest.raises(ConflictError, match="cgroup is not empty: /cais/x"):
        group.create({})
    assert (tree.root / "pids/cais/x").is_dir()


def test_a_failed_create_leaves_no_group(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    with pytest.raises(InvalidArgumentError):
        group.create({"memory": {"limit": 2, "swap": 1}})
    for name in tree.hierarchy.mounts:
        assert not (tree.root / name / "cais/x").exists()
        assert (tree.root / name / "cais").exists()


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"limit": 64 * MIB}, [("memory.limit_in_bytes", str(64 * MIB))]),
        (  # lowering from no limit: memory before the sum
            {"limit": 64 * MIB, "swap": 128 * MIB},
            [
                ("memory.limit_in_bytes", str(64 * MIB)),
                ("memory.memsw.limit_in_bytes", str(128 * MIB)),
            ],
        ),
        (
            {"limit": 64 * MIB, "swap": -1},
            [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", str(64 * MIB))],
        ),
        (  # no swap at all
            {"limit": 64 * MIB, "swap": 64 * MIB},
            [
                ("memory.limit_in_bytes", str(64 * MIB)),
                ("memory.memsw.limit_in_bytes", str(64 * MIB)),
            ],
        ),
        ({"limit": -1}, [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")]),
        ({"reservation": 5}, [("memory.soft_limit_in_bytes", "5")]),
        ({"disableOOMKiller": True}, [("memory.oom_control", "1")]),
        ({"disableOOMKiller": False, "swappiness": 0}, [("memory.swappiness", "0")]),
        ({"kernel": 5, "kernelTCP": 6, "limit": 0}, []),
    ],
)
def test_memory(tree: FakeTree, memory: object, expected: list[tuple[str, str]]) -> None:
    assert writes_of(tree, memory=memory) == expected


def test_raising_memory_raises_the_sum_first(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({"memory": {"limit": 10 * MIB, "swap": 20 * MIB}})
    tree.writes.clear()
    group.apply({"memory": {"limit": 30 * MIB, "swap": 60 * MIB}})
    assert [name for name, _ in tree.writes] == [
        "memory.memsw.limit_in_bytes",
        "memory.limit_in_bytes",
    ]


def test_without_swap_accounting(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    (tree.root / "memory/cais/x/memory.memsw.limit_in_bytes").unlink()
    group.apply({"memory": {"limit": MIB, "swap": -1}})
    with pytest.raises(UnsupportedLimitError, match="cannot set swap limit"):
        group.apply({"memory": {"limit": MIB, "swap": 2 * MIB}})


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        ({"limit": 2, "swap": 1}, "memory+swap limit should be >= memory limit"),
        ({"swappiness": 101}, "valid range is 0-100"),
    ],
)
def test_memory_that_contradicts_itself(tree: FakeTree, memory: object, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        writes_of(tree, memory=memory)
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ({"shares": 512}, [("cpu.shares", "512")]),
        (
            {"quota": 50000, "period": 100000},
            [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")],
        ),
        (
            {"quota": 500, "period": 1000},
            [("cpu.cfs_quota_us", "500"), ("cpu.cfs_period_us", "1000")],
        ),
        ({"quota": -1}, [("cpu.cfs_quota_us", "-1")]),
        ({"burst": 7}, [("cpu.cfs_burst_us", "7")]),
        ({"idle": 1}, [("cpu.idle", "1")]),
        (
            {"realtimeRuntime": 10, "realtimePeriod": 20, "shares": 2},
            [("cpu.rt_period_us", "20"), ("cpu.rt_runtime_us", "10"), ("cpu.shares", "2")],
        ),
        ({"cpus": "0-1", "mems": "0"}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        ({"shares": 0, "quota": 0, "cpus": ""}, []),
    ],
)
def test_cpu(tree: FakeTree, cpu: object, expected: list[tuple[str, str]]) -> None:
    assert writes_of(tree, cpu=cpu) == expected


@pytest.mark.parametrize(("limit", "text"), [(1, "1"), (0, "max"), (-1, "max")])
def test_pids(tree: FakeTree, limit: int, text: str) -> None:
    assert writes_of(tree, pids={"limit": limit}) == [("pids.max", text)]


def test_block_io(tree: FakeTree) -> None:
    throttle = [{"major": 8, "minor": 0, "rate": 1000}]
    assert writes_of(tree, blockIO={"throttleReadBpsDevice": throttle, "weight": 0}) == [
        ("blkio.throttle.read_bps_device", "8:0 1000")
    ]
    with pytest.raises(
        UnsupportedLimitError, match=r"blkio weight: this kernel has no blkio\.weight"
    ):
        open_cgroup(tree.hierarchy, "/cais/x").apply({"blockIO": {"weight": 500}})


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, "hugetlb cgroup controller"),
        ({"rdma": {"mlx": {"hcaHandles": 1}}}, "rdma cgroup controller"),
        ({"network": {"classID": 1}}, "net_cls cgroup controller"),
        ({"unified": {"memory.high": "1"}}, "this host has cgroup v1"),
    ],
)
def test_a_limit_without_its_controller(tree: FakeTree, resources: object, text: str) -> None:
    with pytest.raises(UnsupportedLimitError, match=text):
        writes_of(tree, **resources)  # type: ignore[arg-type]


def test_limits_that_ask_for_nothing_need_no_controller(tmp_path: Path) -> None:
    (tmp_path / "freezer").mkdir()
    hierarchy = Hierarchy({"freezer": str(tmp_path / "freezer")}, None)
    (tmp_path / "freezer/x").mkdir()
    nothing = {"memory": {"limit": 0}, "cpu": {"shares": 0, "cpus": ""}, "pids": {"limit": 0}}
    open_cgroup(hierarchy, "/x").apply({**nothing, "blockIO": {"weight": 0}})  # type: ignore[typeddict-item]


def test_device_limits_need_their_controller(tmp_path: Path) -> None:
    (tmp_path / "freezer").mkdir()
    hierarchy = Hierarchy({"freezer": str(tmp_path / "freezer")}, None)
    with pytest.raises(UnsupportedLimitError, match="device limits"):
        open_cgroup(hierarchy, "/x").create({})
    assert not (tmp_path / "freezer/x").exists()


def test_freezing_waits_until_the_kernel_has_frozen(
    tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    tree.writes.clear()
    answers = iter(["FREEZING", "FREEZING", "FROZEN"])
    monkeypatch.setattr(files, "read", lambda _: next(answers))
    group.freeze()
    assert tree.writes == [("freezer.state", "FROZEN")] * 3


def test_what_cannot_be_frozen_runs_on(tree: FakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    monkeypatch.setattr(files, "read", lambda _: "FREEZING")
    with pytest.raises(DeadlineError, match="not frozen"):
        group.freeze(timeout_s=0)
    assert tree.writes[-1] == ("freezer.state", "THAWED")


def test_join_fds_are_the_thread_files(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    fds = group.join_fds()
    try:
        names = {os.readlink(f"/proc/self/fd/{fd}") for fd in fds}
        assert names == {f"{tree.root}/{name}/cais/x/tasks" for name in tree.hierarchy.mounts}
        assert not any(os.get_inheritable(fd) for fd in fds)
    finally:
        for fd in fds:
            os.close(fd)
    assert group.clone_fd() is None


def test_join_fds_of_no_group_leak_nothing(tree: FakeTree) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CgroupError, match=r"open .*/cais/none/tasks"):
        open_cgroup(tree.hierarchy, "/cais/none").join_fds()
    assert len(os.listdir("/proc/self/fd")) == before


def test_counters(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({"memory": {"limit": MIB}})
    directory = tree.root / "blkio/cais/x"
    (directory / "blkio.throttle.io_service_bytes_recursive").write_text(
        "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n"
    )
    assert group.oom_kills() == 3
    stats = group.stats()
    assert stats["pids"] == {"current": 2, "limit": None}
    assert stats["memory"]["limit"] == MIB
    assert stats["blkio"]["service_bytes"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 4096},
        {"major": 8, "minor": 0, "op": "write", "value": 0},
    ]


def test_an_error_names_the_file_and_the_value(tree: FakeTree) -> None:
    with pytest.raises(CgroupError) as failed:
        open_cgroup(tree.hierarchy, "/cais/gone").apply({"pids": {"limit": 5}})
    assert failed.value.errno == 2
    assert f"{tree.root}/pids/cais/gone/pids.max" in str(failed.value)


def test_no_limit_reads_as_none(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    assert group.stats()["memory"]["limit"] is None


def test_an_empty_group_goes_at_once(tree: FakeTree) -> None:
    group = open_cgroup(tree.hierarchy, "/cais/x")
    group.create({})
    assert group.remove_if_empty()
    assert not group.exists()
    assert group.remove_if_empty()
