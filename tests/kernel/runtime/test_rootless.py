"""Kernel tests of rootless containers: an ordinary user, alone or with subordinate ids.

Where the requirement is not ours alone, the same bundle runs under runc too.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess

import pytest
from rootless_kit import (
    OURS,
    RANGE,
    RUNTIMES,
    SINGLE,
    SUBORDINATE,
    UID,
    Walker,
    delegated_group,
    with_walker,
)

from cais.testing.bundles import read_terminal
from cais.testing.waiting import PATIENCE_S


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_single_id(runtime: str) -> None:
    def body(user: Walker) -> None:
        script = (
            "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; touch /made;"
            "stat -c %t:%T /dev/null /dev/tty; echo x > /dev/null && echo $$"
        )
        lines = user.shell(script).split()
        assert lines == ["0", "0", "0", str(UID), "1", "deny", "1:3", "5:0", "1"]
        assert os.stat(user.bundle / "rootfs/made").st_uid == UID

    with_walker(body, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_subordinate_ids(runtime: str) -> None:
    def body(user: Walker) -> None:
        user.map_ids(RANGE)
        groups = ["7", "8"] if runtime == OURS else []  # of which runc 1.1 allows none
        user.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [int(gid) for gid in groups]}
        (user.bundle / "rootfs/open").mkdir()
        (user.bundle / "rootfs/open").chmod(0o777)
        lines = user.shell("id -u; id -g; id -G; cat /proc/self/setgroups; touch /open/x")
        assert lines.split() == ["5", "6", "6", *groups, "allow"]
        status = os.stat(user.bundle / "rootfs/open/x")
        assert (status.st_uid, status.st_gid) == (SUBORDINATE + 4, SUBORDINATE + 5)

    with_walker(body, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_life_of_a_container_and_where_its_state_is(runtime: str) -> None:
    def body(user: Walker) -> None:
        user.map_ids(RANGE)
        user.process["oomScoreAdj"] = 321
        user.create()
        state = json.loads(user("state", user.id))
        assert state["status"] == "running"
        assert user.id in user("list")
        assert any(user.run_directory.rglob(user.id))
        output = user("exec", user.id, "sh", "-c", "id -u; cat /proc/self/oom_score_adj; ps")
        assert output.split()[:2] == ["0", "321"]
        assert "sleep 60" in output
        assert user("exec", "--user", "3:4", user.id, "id", "-u") == "3\n"
        user("kill", user.id, "KILL")
        os.waitpid(state["pid"], 0)
        user("delete", user.id)
        assert "does not exist" in user("state", user.id, code=1)

    with_walker(body, runtime)


def test_a_terminal() -> None:
    def body(user: Walker) -> None:
        user.process.update(terminal=True, args=["sh", "-c", "tty; stat -c %u /dev/pts/0"])
        user.save()
        master_fd, slave_fd = pty.openpty()
        command = user.command("run", "--bundle", str(user.bundle), user.id)
        with subprocess.Popen(command, stdin=slave_fd, stdout=slave_fd, stderr=slave_fd) as done:
            os.close(slave_fd)
            assert read_terminal(master_fd).split() == ["/dev/pts/0", "0"]
            assert done.wait(PATIENCE_S) == 0
        os.close(master_fd)

    with_walker(body)


def test_mounts_masks_and_a_read_only_root() -> None:
    def body(user: Walker) -> None:
        (user.directory / "data").mkdir()
        os.chown(user.directory / "data", UID, UID)
        user.config["root"]["readonly"] = True
        user.config["mounts"] += [
            {"destination": "/v", "type": "bind", "source": "../data", "options": ["rbind", "rro"]},
            {"destination": "/t", "type": "tmpfs", "options": ["size=64k", "noexec"]},
        ]
        user.linux["maskedPaths"] = ["/proc/keys", "/proc/acpi"]
        script = (
            "touch /x; touch /v/x; touch /t/x && echo tmpfs; stat -c %t:%T /proc/keys;"
            "echo 1 > /proc/sys/kernel/msgmax; mount -o remount,rw,bind /v; touch /v/x"
        )
        output = user.shell(script, code=1)
        assert output.count("Read-only file system") == 4
        assert "tmpfs\n1:3\n" in output

    with_walker(body)


def test_limits_are_refused_with_the_reason() -> None:
    def body(user: Walker) -> None:
        user.linux["resources"] = {"memory": {"limit": 1 << 26}, "pids": {"limit": 9}}
        message = user.shell("true", code=1)
        assert "rootless container cannot have limits (memory, pids): " in message
        assert "permission denied" in message
        user.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        assert user.shell("echo fine") == "fine\n"
        user.linux["cgroupsPath"] = "/nobody-may/write-here"
        assert user.shell("echo fine") == "fine\n"
        assert "permission denied" in user.shell("true", "--rootless=false", code=1)

    with_walker(body)


def test_a_delegated_control_group() -> None:
    def body(user: Walker) -> None:
        with delegated_group() as group:
            user.linux["cgroupsPath"] = f"/{group.name}/box"
            if {"type": "cgroup"} not in user.linux["namespaces"]:  # as for hosts of cgroup v1
                user.linux["namespaces"].append({"type": "cgroup"})
            user.config["mounts"] += [
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"]}
            ]
            user.create()
            output = user("exec", user.id, "sh", "-c", "cat /proc/self/cgroup; ls /sys/fs/cgroup")
            assert "0::/\n" in output
            assert "cgroup.procs" in output
            pid = json.loads(user("state", user.id))["pid"]
            assert str(pid) in (group / "box/cgroup.procs").read_text().split()
            user("pause", user.id)
            assert json.loads(user("state", user.id))["status"] == "paused"
            user("resume", user.id)
            user("kill", "--all", user.id, "KILL")
            os.waitpid(pid, 0)
            user("delete", user.id)
            assert not (group / "box").exists()
            user.linux["resources"] = {"pids": {"limit": 9}}
            if "pids" in (group / "cgroup.controllers").read_text().split():
                assert user.shell("cat /sys/fs/cgroup/pids.max") == "9\n"
            else:
                assert "cannot set pids" in user.shell("true", code=1)
            assert not (group / "box").exists()

    with_walker(body)


def test_what_needs_a_control_group_says_so() -> None:
    def body(user: Walker) -> None:
        user.create()
        assert user("exec", user.id, "id", "-u") == "0\n"  # which needs none
        for command in ("pause", "update --pids-limit 9", "ps", "events --stats", "kill --all"):
            assert "control group" in user(*command.split(), user.id, code=1)
        pid = json.loads(user("state", user.id))["pid"]
        user("delete", "--force", user.id)
        os.waitpid(pid, 0)

    with_walker(body)


def test_groups_need_subordinate_ids() -> None:
    def body(user: Walker) -> None:
        user.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [0]}
        assert user.shell("id -u") == "0\n"
        user.process["user"]["additionalGids"] = [5]
        assert "setgroups [5]" in user.shell("true", code=1)

    with_walker(body)


def test_ids_of_others_cannot_be_mapped() -> None:
    def body(user: Walker) -> None:
        user.map_ids([*SINGLE, {"containerID": 1, "hostID": 1000, "size": 5}])
        message = user.shell("true", code=1)
        assert "write uid_map" in message
        assert "not allowed" in message  # newuidmap's own words
        user.map_ids([{"containerID": 0, "hostID": 0, "size": 1}])
        assert "write uid_map" in user.shell("true", code=1)

    with_walker(body)


def test_a_user_namespace_is_needed() -> None:
    def body(user: Walker) -> None:
        user.linux["namespaces"] = [{"type": "mount"}, {"type": "pid"}]
        for name in ("uidMappings", "gidMappings"):
            del user.linux[name]
        user.config["hostname"] = ""
        message = user.shell("true", code=1)
        assert "rootless container requires user namespaces" in message

    with_walker(body)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_root_of_a_user_namespace_somebody_else_made(runtime: str) -> None:
    """What podman does before it calls its runtime: no user namespace in the document."""

    def body(user: Walker) -> None:
        user.linux["namespaces"] = [
            {"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network")
        ]
        for name in ("uidMappings", "gidMappings"):
            del user.linux[name]
        outer = ("unshare", "--user", "--map-root-user", "--mount")
        script = "id -u; stat -c %t:%T /dev/zero; echo $$; touch /made"
        assert user.shell(script, before=outer).split() == ["0", "1:5", "1"]
        assert os.stat(user.bundle / "rootfs/made").st_uid == UID

    with_walker(body, runtime)


def test_time_and_id_maps_of_an_ordinary_user() -> None:
    def body(user: Walker) -> None:
        user.linux["namespaces"].append({"type": "time"})
        user.linux["timeOffsets"] = {"boottime": {"secs": 500_000_000}}
        uptime = float(user.shell("cat /proc/uptime").split()[0])
        assert uptime > 500_000_000
        user.map_ids(RANGE)
        user.config["mounts"].append(
            {"destination": "/v", "type": "bind", "source": ".", "options": ["bind", "idmap"]}
        )
        assert "mount_setattr idmap: operation not permitted" in user.shell("true", code=1)

    with_walker(body)
