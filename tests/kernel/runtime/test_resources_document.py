"""Every member of ``linux.resources``: it arrives in the group's files, or is refused by name.

A host has what its kernel was built with: a limit whose file does not exist must be an error that
says which limit that is, never silence.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import InvalidArgumentError
from cais.linux import cgroups
from cais.linux.cgroups import UnsupportedLimitError
from cais.linux.cgroups.resources_v2 import blkio_to_io_weight
from cais.runtime import container as runtime
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

HIERARCHY = cgroups.detect()
MIB = 1 << 20


def first_disk() -> tuple[int, int]:
    """Return the number of a block device that can be throttled."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram", "dm-")):
            major, minor = Path(f"/sys/block/{name}/dev").read_text().split(":")
            return int(major), int(minor)
    raise AssertionError("a machine without a disk")


MAJOR, MINOR = first_disk()
DISK = {"major": MAJOR, "minor": MINOR}
NUMBER = f"{MAJOR}:{MINOR}"
WEIGHT = blkio_to_io_weight(300)  # of io.weight; the file of the BFQ scheduler has 300

# (member, resources, v1 controller and file, v2 file, what is read there: one text, or one each)
LIMITS: list[tuple[str, dict[str, Any], tuple[str, str], str, str | tuple[str, str]]] = [
    ("memory.limit", {"memory": {"limit": 64 * MIB}}, ("memory", "memory.limit_in_bytes"),
     "memory.max", str(64 * MIB)),
    ("memory.reservation", {"memory": {"reservation": 32 * MIB}},
     ("memory", "memory.soft_limit_in_bytes"), "memory.low", str(32 * MIB)),
    ("memory.swap", {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
     ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max", (str(96 * MIB), str(32 * MIB))),
    ("cpu.shares", {"cpu": {"shares": 512}}, ("cpu", "cpu.shares"), "cpu.weight", ("512", "59")),
    ("cpu.quota", {"cpu": {"quota": 50_000, "period": 100_000}}, ("cpu", "cpu.cfs_quota_us"),
     "cpu.max", ("50000", "50000 100000")),
    ("cpu.period", {"cpu": {"quota": 10_000, "period": 50_000}}, ("cpu", "cpu.cfs_period_us"),
     "cpu.max", ("50000", "10000 50000")),
    ("cpu.burst", {"cpu": {"quota": 50_000, "period": 100_000, "burst": 10_000}},
     ("cpu", "cpu.cfs_burst_us"), "cpu.max.burst", "10000"),
    ("cpu.idle", {"cpu": {"idle": 1}}, ("cpu", "cpu.idle"), "cpu.idle", "1"),
    ("cpu.cpus", {"cpu": {"cpus": "0"}}, ("cpuset", "cpuset.cpus"), "cpuset.cpus", "0"),
    ("cpu.mems", {"cpu": {"mems": "0"}}, ("cpuset", "cpuset.mems"), "cpuset.mems", "0"),
    ("pids.limit", {"pids": {"limit": 17}}, ("pids", "pids.max"), "pids.max", "17"),
    ("blockIO.weight", {"blockIO": {"weight": 300}}, ("blkio", "blkio.bfq.weight"), "io.weight",
     ("300", f"default {WEIGHT}")),
    ("blockIO.leafWeight", {"blockIO": {"leafWeight": 300}}, ("blkio", "blkio.leaf_weight"), "-",
     "300"),
    ("blockIO.weightDevice", {"blockIO": {"weightDevice": [{**DISK, "weight": 300}]}},
     ("blkio", "blkio.bfq.weight_device"), "io.weight", (f"{NUMBER} 300", f"{NUMBER} {WEIGHT}")),
    ("blockIO.weightDevice.leafWeight",
     {"blockIO": {"weightDevice": [{**DISK, "leafWeight": 300}]}},
     ("blkio", "blkio.leaf_weight_device"), "-", f"{NUMBER} 300"),
    ("blockIO.throttleReadBpsDevice",
     {"blockIO": {"throttleReadBpsDevice": [{**DISK, "rate": MIB}]}},
     ("blkio", "blkio.throttle.read_bps_device"), "io.max", (f"{NUMBER} {MIB}", f"rbps={MIB}")),
    ("blockIO.throttleWriteBpsDevice",
     {"blockIO": {"throttleWriteBpsDevice": [{**DISK, "rate": MIB}]}},
     ("blkio", "blkio.throttle.write_bps_device"), "io.max", (f"{NUMBER} {MIB}", f"wbps={MIB}")),
    ("blockIO.throttleReadIOPSDevice",
     {"blockIO": {"throttleReadIOPSDevice": [{**DISK, "rate": 100}]}},
     ("blkio", "blkio.throttle.read_iops_device"), "io.max", (f"{NUMBER} 100", "riops=100")),
    ("blockIO.throttleWriteIOPSDevice",
     {"blockIO": {"throttleWriteIOPSDevice": [{**DISK, "rate": 100}]}},
     ("blkio", "blkio.throttle.write_iops_device"), "io.max", (f"{NUMBER} 100", "wiops=100")),
    ("hugepageLimits", {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]},
     ("hugetlb", "hugetlb.2MB.limit_in_bytes"), "hugetlb.2MB.max", str(4 * MIB)),
    ("network.classID", {"network": {"classID": 0x100001}}, ("net_cls", "net_cls.classid"), "-",
     str(0x100001)),
    ("network.priorities", {"network": {"priorities": [{"name": "lo", "priority": 3}]}},
     ("net_prio", "net_prio.ifpriomap"), "-", "lo 3"),
    ("rdma", {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}}, ("rdma", "rdma.max"),
     "rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
    ("unified", {"unified": {"memory.high": str(50 * MIB)}}, ("-", "-"), "memory.high",
     str(50 * MIB)),
]  # fmt: skip


def place_of(cgroup: str, v1: tuple[str, str], v2: str) -> Path | None:
    """Return the file a limit is in; None: this host has no such controller."""
    if HIERARCHY.version == 2:
        return Path(f"{HIERARCHY.unified}{cgroup}/{v2}")
    mount = HIERARCHY.mounts.get(v1[0])
    return Path(f"{mount}{cgroup}/{v1[1]}") if mount else None


@pytest.mark.parametrize(("member", "resources", "v1", "v2", "expected"), LIMITS)
def test_a_limit_arrives_or_is_refused(
    tmp_path: Path,
    member: str,
    resources: Mapping[str, Any],
    v1: tuple[str, str],
    v2: str,
    expected: str | tuple[str, str],
) -> None:
    wanted = expected if isinstance(expected, str) else expected[HIERARCHY.version - 1]

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["resources"] = resources
        place = place_of(f"/cais/{bundle.id}", v1, v2)
        refused, init = None, None
        with Capture() as capture:
            try:
                init = bundle.start("sleep", "1000", stdio=capture.stdio)
            except (UnsupportedLimitError, LaunchError) as error:
                refused = error
            try:
                if init is not None:
                    assert place is not None, f"{member} was ignored"
                    assert_limit(place, wanted)
            finally:
                if init is not None:
                    runtime.kill_all(bundle.id, str(bundle.path))
                    end(init)
                bundle.destroy()
        if isinstance(refused, LaunchError):
            # The disk's scheduler has no weights; there is no such adapter.
            assert refused.errno in (errno.EOPNOTSUPP, errno.ENODEV), refused
        elif refused is not None:
            assert not has_file(place), f"{member} could have been set: {refused}"

    isolated(body)


def assert_limit(place: Path, wanted: str) -> None:
    """Compare, allowing for a host whose disks are shared out by BFQ."""
    bfq = place.with_name("io.bfq.weight")
    if place.name == "io.weight" and bfq.exists():
        place, wanted = bfq, wanted.replace(str(WEIGHT), "300")
    assert wanted in place.read_text(), place.name


def has_file(place: Path | None) -> bool:
    """Say whether groups of this host have the file: their parent has the same ones."""
    return place is not None and (place.parents[1] / place.name).exists()


@pytest.mark.parametrize("member", ["kernel", "kernelTCP", "useHierarchy"])
def test_what_linux_has_given_up_is_accepted_and_ignored(tmp_path: Path, member: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        value = 64 * MIB if member.startswith("kernel") else True
        bundle.linux["resources"] = {"memory": {"limit": 64 * MIB, member: value}}
        assert bundle.run("true").code == 0

    isolated(body)


def test_a_limit_below_the_usage_is_refused(tmp_path: Path) -> None:
    """On cgroup v1 by the kernel, on v2 where the container asks for it when it is made."""
    # oci: linux.resources.memory.checkBeforeUpdate

    def body() -> None:
        bundle = Bundle(tmp_path)
        memory = {"limit": 64 * MIB, "checkBeforeUpdate": True}
        if HIERARCHY.version == 1:
            memory["swappiness"] = 0  # its kernel makes room before it refuses
        bundle.linux["resources"] = {"memory": memory}
        with Capture() as capture:
            script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=16 2>/dev/null; echo; exec sleep 60"
            running = bundle.start("sh", "-c", script, stdio=capture.stdio)
            wait_until(lambda: bool(os.fstat(capture.stdio.stdout).st_size))
            before = memory_limit(bundle)
            with pytest.raises(InvalidArgumentError, match="memory limit"):
                runtime.update(bundle.id, str(bundle.path), {"memory": {"limit": 1 * MIB}})
            assert memory_limit(bundle) == before
            os.kill(running.pid, signal.SIGKILL)
            end(running)
            assert not bundle.destroy()  # nothing was killed for it

    isolated(body)


def memory_limit(bundle: Bundle) -> int:
    stats: dict[str, dict[str, int]] = runtime.cgroup_of(bundle.id, str(bundle.path)).stats()
    return stats["memory"]["limit"]


def test_swappiness_and_the_oom_killer(tmp_path: Path) -> None:
    """Of cgroup v1 alone."""

    def body() -> None:
        bundle = Bundle(tmp_path)
        for member, value in (("swappiness", 10), ("disableOOMKiller", True)):
            bundle.linux["resources"] = {"memory": {"limit": 64 * MIB, member: value}}
            if HIERARCHY.version == 1:
                assert bundle.run("true").code == 0
            else:
                with pytest.raises(UnsupportedLimitError):
                    bundle.run("true")

    isolated(body)


def test_device_rules(tmp_path: Path) -> None:
    """Allowed and denied one by one, by type, numbers and access."""

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["resources"] = {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            ]
        }
        result = bundle.shell("echo >/dev/null && echo null; head -c 1 /dev/mem 2>&1; true")
        assert result.stdout.startswith("null")

    isolated(body)
