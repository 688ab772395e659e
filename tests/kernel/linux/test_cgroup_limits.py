"""Control groups on this kernel: limits hold, groups freeze, die and go. Either version."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from pathlib import Path

import cgroup_kit as kit
import pytest

from cais.errors import ConflictError
from cais.linux.cgroups import UnsupportedLimitError, open_cgroup
from cais.linux.cgroups.features import probe
from cais.testing.isolation import cgroups_named, isolated
from cais.testing.waiting import PATIENCE_S, wait_until

MIB = 1 << 20
ENDS_BY_KILL = -signal.SIGKILL


def allocate(size: int) -> None:
    data = bytearray(size)
    for offset in range(0, size, 4096):
        data[offset] = 1


def test_a_process_joins_by_itself_and_leaves_nothing() -> None:
    def body() -> None:
        with kit.group() as group:
            pid = kit.sleeper(group)
            assert group.pids() == [pid]
            text = Path(f"/proc/{pid}/cgroup").read_text()
            assert group.path in text
            if kit.HIERARCHY.version == 1:
                lines = [line.split(":") for line in text.splitlines()]
                named = {names: path for _, names, path in lines}
                for controller in kit.HIERARCHY.mounts:
                    assert named[controller] == group.path
        assert not group.exists()
        assert not cgroups_named(kit.parent().strip("/"))

    isolated(body)


def test_a_process_is_moved_by_pid() -> None:
    def body() -> None:
        with kit.group() as group:
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            group.add(pid)
            assert group.pids() == [pid]

    isolated(body)


def test_memory_limit_kills_and_is_counted() -> None:
    def body() -> None:
        with kit.group({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}) as group:
            assert group.oom_kills() == 0
            fd = group.oom_event_fd()
            assert fd is not None
            waiter = select.poll()
            waiter.register(fd, group.oom_poll_mask)
            assert waiter.poll(0) == []
            assert kit.run(group, lambda: allocate(64 * MIB)) == ENDS_BY_KILL
            assert waiter.poll(1000 * PATIENCE_S)
            # cgroup v2 may tell of the same event again, 10 ms later.
            wait_until(lambda: group.clear_oom_event(fd) and not waiter.poll(20))
            os.close(fd)
            assert group.oom_kills() >= 1
            assert group.stats()["memory"]["limit"] == 16 * MIB

    isolated(body)


def test_a_watch_outlives_its_group() -> None:
    def body() -> None:
        group = open_cgroup(kit.HIERARCHY, f"{kit.parent()}/w")
        group.create({})
        fd = group.oom_event_fd()
        assert fd is not None
        group.remove()
        open_cgroup(kit.HIERARCHY, kit.parent()).remove()
        waiter = select.poll()
        waiter.register(fd, group.oom_poll_mask)
        assert waiter.poll(1000 * PATIENCE_S)
        is_there = group.clear_oom_event(fd)
        assert is_there == (waiter.poll(0) == [])
        assert group.oom_kills() == 0
        os.close(fd)

    isolated(body)


def test_memory_within_the_limit_is_given() -> None:
    def body() -> None:
        with kit.group({"memory": {"limit": 64 * MIB}}) as group:
            assert kit.run(group, lambda: allocate(16 * MIB)) == 0
            assert group.oom_kills() == 0

    isolated(body)


def test_limits_go_up_and_down() -> None:
    def body() -> None:
        with kit.group({"memory": {"limit": 16 * MIB, "swap": 32 * MIB}}) as group:
            for size in (64, 8, 128):
                group.apply({"memory": {"limit": size * MIB, "swap": 2 * size * MIB}})
                assert group.stats()["memory"]["limit"] == size * MIB
            group.apply({"memory": {"limit": -1, "swap": -1}})
            assert group.stats()["memory"]["limit"] is None

    isolated(body)


def test_pids_limit_stops_a_fork_bomb() -> None:
    def body() -> None:
        with kit.group({"pids": {"limit": 8}}) as group:
            assert kit.run(group, kit.fork_until_refused) == 7
            group.apply({"pids": {"limit": 4}})
            assert kit.run(group, kit.fork_until_refused) == 3
            group.apply({"pids": {"limit": -1}})
            assert kit.run(group, lambda: kit.fork_until_refused(20)) == 20

    isolated(body)


def test_cpu_quota_is_held() -> None:
    def burn() -> None:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass

    def body() -> None:
        # So little that a process passes it on a busy machine, too.
        with kit.group({"cpu": {"quota": 2_000, "period": 100_000, "shares": 512}}) as group:
            assert kit.run(group, burn) == 0
            assert group.stats()["cpu"]["throttled_periods"] >= 1

    isolated(body)


def test_cpuset_binds_to_a_processor() -> None:
    def body() -> None:
        if not probe(kit.HIERARCHY).cpuset:  # a kernel for one processor
            with (
                pytest.raises(UnsupportedLimitError, match="cpuset"),
                kit.group({"cpu": {"cpus": "0"}}),
            ):
                pass
            open_cgroup(kit.HIERARCHY, kit.parent()).remove()
            return
        with kit.group({"cpu": {"cpus": "0"}}) as group:
            assert kit.run(group, lambda: os.sched_getaffinity(0) != {0}) == 0

    isolated(body)


def test_a_frozen_group_stands_still_and_can_be_killed() -> None:
    def body() -> None:
        with kit.group() as group:
            read_fd, write_fd = os.pipe()

            def tick() -> None:
                while True:
                    os.write(write_fd, b".")
                    time.sleep(0.001)

            pid = kit.spawn(group, tick)
            os.read(read_fd, 1)
            group.freeze()
            assert group.is_frozen()
            os.set_blocking(read_fd, False)
            kit.errno_of(lambda: os.read(read_fd, 65536))
            time.sleep(0.02)
            assert kit.errno_of(lambda: os.read(read_fd, 1)) == errno.EAGAIN
            group.thaw()
            assert not group.is_frozen()
            os.set_blocking(read_fd, True)
            os.read(read_fd, 1)
            group.freeze()
            group.kill_all(PATIENCE_S)
            assert kit.status_of(pid) == ENDS_BY_KILL
            os.close(read_fd)
            os.close(write_fd)

    isolated(body)


def test_killing_takes_a_forking_family() -> None:
    def bomb() -> None:
        while True:
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(0.002)

    def body() -> None:
        with kit.group({"pids": {"limit": 50}}) as group:
            kit.spawn(group, bomb)
            wait_until(lambda: len(group.pids()) > 5)
            group.kill_all(PATIENCE_S)
            assert group.pids() == []

    isolated(body)


def test_removing_waits_for_the_last_process() -> None:
    def body() -> None:
        group = open_cgroup(kit.HIERARCHY, f"{kit.parent()}/r")
        group.create({})
        read_fd, write_fd = os.pipe()

        def last() -> None:
            os.read(read_fd, 1)
            time.sleep(0.1)

        pid = kit.spawn(group, last)
        wait_until(lambda: pid in group.pids())
        assert not group.remove_if_empty()
        assert group.exists()
        with pytest.raises(OSError, match="rmdir") as busy:
            group.remove(0.01)
        assert busy.value.errno == errno.EBUSY
        os.write(write_fd, b"x")
        group.remove(PATIENCE_S)
        os.close(read_fd)
        os.close(write_fd)
        assert not group.exists()
        group.remove()
        os.waitpid(pid, 0)
        open_cgroup(kit.HIERARCHY, kit.parent()).remove()

    isolated(body)


def test_groups_made_inside_are_removed_too() -> None:
    def body() -> None:
        with kit.group() as group:
            inner = open_cgroup(kit.HIERARCHY, f"{group.path}/a/b")
            inner.create({})
            pid = kit.sleeper(inner)
            assert group.pids() == [pid]
            assert not group.remove_if_empty()
            group.kill_all(PATIENCE_S)
            assert kit.status_of(pid) == ENDS_BY_KILL
            group.remove()
            assert not inner.exists()

    isolated(body)


def test_a_group_in_use_is_not_taken_over() -> None:
    def body() -> None:
        with kit.group() as group:
            kit.sleeper(group)
            with pytest.raises(ConflictError, match="not empty"):
                group.create({})

    isolated(body)


def open_node(major: int, minor: int, flags: int, *, block: bool = False) -> int:
    """Make a node and open it; return the errno."""
    path = f"/dev/cais-node-{os.getpid()}"  # not in /dev/shm, which systemd mounts nodev
    kind = 0o060000 if block else 0o020000
    made = kit.errno_of(lambda: os.mknod(path, kind | 0o600, os.makedev(major, minor)))
    if made:
        return 100 + made
    try:
        return kit.errno_of(lambda: os.close(os.open(path, flags | os.O_NONBLOCK)))
    finally:
        os.unlink(path)


def test_devices_are_denied_by_default() -> None:
    """SECURITY.md 3.5 and C3: a node can be made, and not opened."""

    def body() -> None:
        with kit.group() as group:
            for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9)):
                assert kit.run(group, lambda a=major, b=minor: open_node(a, b, os.O_RDWR)) == 0
            for major in (2, 3, 4, 6, 7, 10, 11, 13, 21, 29, 108, 116, 195, 226, 229, 240, 254):
                code = kit.run(group, lambda a=major: open_node(a, 1, os.O_RDONLY))
                assert code == errno.EPERM, major
            for major in (1, 7, 8, 9, 65, 179, 253, 254, 259):
                code = kit.run(group, lambda a=major: open_node(a, 0, os.O_RDONLY, block=True))
                assert code == errno.EPERM, major
            assert kit.run(group, lambda: open_node(1, 1, os.O_RDONLY)) == errno.EPERM  # mem

    isolated(body)


def test_device_rules_follow_an_update() -> None:
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}  # kmsg

    def body() -> None:
        with kit.group() as group:
            assert kit.run(group, lambda: open_node(1, 11, os.O_RDONLY)) == errno.EPERM
            group.apply({"devices": [rule]})  # type: ignore[list-item]
            assert kit.run(group, lambda: open_node(1, 11, os.O_RDONLY)) == 0
            assert kit.run(group, lambda: open_node(1, 11, os.O_RDWR)) == errno.EPERM
            group.apply({"devices": []})
            assert kit.run(group, lambda: open_node(1, 11, os.O_RDONLY)) == errno.EPERM
            assert kit.run(group, lambda: open_node(1, 3, os.O_RDWR)) == 0
            group.apply({"devices": [{"allow": True, "access": "rwm"}]})
            assert kit.run(group, lambda: open_node(1, 11, os.O_RDWR)) == 0

    isolated(body)


def test_clone_into_the_group_is_for_v2() -> None:
    def body() -> None:
        with kit.group() as group:
            fd = group.clone_fd()
            assert (fd is None) == (kit.HIERARCHY.version == 1)
            if fd is not None:
                assert os.path.samestat(
                    os.fstat(fd), os.stat(f"{kit.HIERARCHY.unified}{group.path}")
                )
                assert not os.get_inheritable(fd)
                os.close(fd)

    isolated(body)
