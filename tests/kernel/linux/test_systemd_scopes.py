"""Control groups made by systemd: scopes with their limits, told to systemd and to the kernel."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import cgroup_kit as kit
import pytest

from cais.errors import ConflictError, InvalidArgumentError
from cais.linux.cgroups import open_cgroup
from cais.linux.cgroups.systemd_manager import Manager, is_running
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.linux.cgroups import Cgroup
    from cais.spec.runtime import Resources

pytestmark = pytest.mark.skipif(
    not is_running() or kit.HIERARCHY.version != 2, reason="needs systemd and cgroup v2 alone"
)
MIB = 1 << 20
SLICE = "cais-test.slice"


@contextlib.contextmanager
def scope(resources: Resources | None = None, name: str = "a") -> Iterator[tuple[Cgroup, int]]:
    """A scope as a container gets it, with its first process; gone at the end."""
    group = open_cgroup(kit.HIERARCHY, f"{SLICE}:cais:{name}{os.getpid()}")
    group.create(resources or {})
    pid = kit.sleeper(group)
    group.entered()
    try:
        yield group, pid
    finally:
        group.kill_all(5)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        group.remove()


def unit_of(group: Cgroup) -> str:
    return os.path.basename(group.path)


def shown(group: Cgroup, *names: str) -> dict[str, str]:
    """Return properties as systemd tells them."""
    command = ["systemctl", "show", unit_of(group), *(f"--property={name}" for name in names)]
    text = subprocess.check_output(command, text=True)
    return dict(line.split("=", 1) for line in text.splitlines())


def file_of(group: Cgroup, name: str) -> str:
    return Path(f"/sys/fs/cgroup{group.path}", name).read_text().strip()


def test_a_scope_stands_in_its_slice_and_goes() -> None:
    def body() -> None:
        with scope() as (group, pid):
            assert group.path == f"/cais.slice/{SLICE}/{unit_of(group)}"
            assert group.pids() == [pid]
            assert group.path in Path(f"/proc/{pid}/cgroup").read_text()
            facts = shown(group, "ActiveState", "Slice", "Delegate", "Description")
            assert facts["ActiveState"], facts["Delegate"] == ("active", "yes")
            assert facts["Slice"] == SLICE
            assert facts["Description"].startswith("cais container a")
        assert not group.exists()
        assert shown(group, "LoadState", "ActiveState") == {
            "LoadState": "not-found",
            "ActiveState": "inactive",
        }

    isolated(body)


def test_a_scope_goes_by_itself_when_its_last_process_ends() -> None:
    def body() -> None:
        with scope() as (group, pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            wait_until(lambda: not group.exists())

    isolated(body)


def test_limits_reach_the_kernel_and_outlive_a_reload() -> None:
    resources: Resources = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB},
        "cpu": {"shares": 512, "quota": 15_000, "period": 50_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 33},
        "unified": {"memory.high": str(60 * MIB), "memory.oom.group": "1"},
    }
    expected = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(16 * MIB),
        "memory.high": str(60 * MIB),
        "memory.oom.group": "1",
        "cpu.weight": "59",
        "cpu.max": "15000 50000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "33",
    }

    def body() -> None:
        with scope(resources) as (group, _):
            assert {name: file_of(group, name) for name in expected} == expected
            subprocess.run(["systemctl", "daemon-reload"], check=True)
            del expected["memory.oom.group"]  # scopes have no property for it before systemd 253
            assert {name: file_of(group, name) for name in expected} == expected
            facts = shown(group, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec", "AllowedCPUs")
            assert facts == {
                "MemoryMax": str(64 * MIB),
                "TasksMax": "33",
                "CPUQuotaPerSecUSec": "300ms",
                "AllowedCPUs": "0",
            }

    isolated(body)


def test_an_update_changes_what_it_names() -> None:
    def body() -> None:
        with scope({"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}}) as (group, _):
            group.apply({"memory": {"limit": 32 * MIB}, "cpu": {"quota": 5000}})
            subprocess.run(["systemctl", "daemon-reload"], check=True)
            assert file_of(group, "memory.max") == str(32 * MIB)
            assert file_of(group, "pids.max") == "9"
            assert file_of(group, "cpu.max") == "5000 100000"
            group.apply({"memory": {"limit": -1}, "pids": {"limit": -1}})
            facts = shown(group, "MemoryMax", "TasksMax")
            assert facts == {"MemoryMax": "infinity", "TasksMax": "infinity"}

    isolated(body)


def open_kmsg() -> int:
    return kit.errno_of(lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY)))


def test_devices_are_denied_before_and_after_a_reload() -> None:
    def body() -> None:
        with scope() as (group, _):
            for _ in range(2):
                assert kit.run(group, open_kmsg) == 1  # EPERM
                assert kit.run(group, lambda: os.close(os.open("/dev/null", os.O_RDWR))) == 0
                assert kit.run(group, lambda: os.close(os.open("/dev/ptmx", os.O_RDWR))) == 0
                subprocess.run(["systemctl", "daemon-reload"], check=True)
            rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
            group.apply({"devices": [rule]})  # type: ignore[list-item]
            assert kit.run(group, open_kmsg) == 0
            subprocess.run(["systemctl", "daemon-reload"], check=True)
            assert kit.run(group, open_kmsg) == 0

    isolated(body)


def test_every_device_when_the_rules_say_so() -> None:
    def body() -> None:
        with scope({"devices": [{"allow": True, "access": "rwm"}]}) as (group, _):
            assert kit.run(group, open_kmsg) == 0
            assert shown(group, "DevicePolicy") == {"DevicePolicy": "auto"}

    isolated(body)


def test_a_scope_freezes_and_is_killed() -> None:
    def body() -> None:
        with scope() as (group, pid):
            group.freeze()
            assert group.is_frozen()
            group.thaw()
            group.kill_all()
            assert kit.status_of(pid) == -signal.SIGKILL

    isolated(body)


def test_the_same_name_twice_is_a_conflict() -> None:
    def body() -> None:
        with scope() as (group, pid):
            again = open_cgroup(kit.HIERARCHY, f"{SLICE}:cais:a{os.getpid()}")
            with pytest.raises(ConflictError, match="not empty"):
                again.create({})
            assert group.pids() == [pid]

    isolated(body)


def test_a_limit_that_cannot_be_leaves_no_unit() -> None:
    def body() -> None:
        group = open_cgroup(kit.HIERARCHY, f"{SLICE}:cais:bad{os.getpid()}")
        with pytest.raises(InvalidArgumentError):
            group.create({"memory": {"limit": 64 * MIB, "swap": MIB}})
        with pytest.raises(OSError, match="cpuset"):
            group.create({"unified": {"cpuset.cpus.partition": "nonsense"}})
        assert not group.exists()
        with Manager() as manager:
            assert manager.version() > 200

    isolated(body)
