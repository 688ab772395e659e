"""A14: no container changes a control group, its own or another's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker_bundle import docker_bundle, give_user_namespace, in_container

from cais.spec.container import HostConfig

if TYPE_CHECKING:
    from cais.testing.bundles import Bundle

UNCONFINED = ["seccomp=unconfined", "apparmor=unconfined"]
# Files are opened for writing and not written: where the wall is broken, the host is behind it.
ATTEMPTS = r"""
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -d $directory ] || continue
    for name in cgroup.procs tasks notify_on_release release_agent memory.limit_in_bytes \
            devices.allow devices.deny freezer.state pids.max memory.max cgroup.kill \
            cgroup.subtree_control cpu.max; do
        [ -e $directory/$name ] || continue
        echo seen
        (: >>$directory/$name) 2>/dev/null && echo "CHANGED $directory/$name"
    done
    mkdir $directory/mine 2>/dev/null && rmdir $directory/mine && echo "CHANGED $directory/mine"
    mount -o remount,rw $directory 2>/dev/null && echo "CHANGED $directory mount"
    mount -o remount,bind,rw $directory 2>/dev/null && echo "CHANGED $directory bind"
    umount $directory 2>/dev/null && echo "CHANGED $directory umount"
done
mkdir /tmp; for kind in cgroup cgroup2; do
    mount -t $kind none /tmp 2>/dev/null && echo "CHANGED mount of $kind"
done
true
"""


def attempt(
    directory: Path, host_config: HostConfig, *, nested: bool = False, remapped: bool = False
) -> None:
    """Try to change every control group from inside.

    Args:
        directory: for the bundle.
        host_config: the container's options.
        nested: in a user namespace that the container makes.
        remapped: in a user namespace the container is given.

    """

    def body(bundle: Bundle) -> None:
        if remapped:
            give_user_namespace(bundle)
        words = ["unshare", "-U", "-r", "-m"] if nested else []
        result = bundle.run(*words, "sh", "-c", ATTEMPTS)
        assert result.code == 0, result.stderr
        assert "seen" in result.stdout, "no control group was looked at"
        assert [line for line in result.stdout.splitlines() if line != "seen"] == []

    in_container(directory, body, host_config)


@pytest.mark.parametrize("mode", ["host", "private"])
def test_cve_2023_25809_default_container(tmp_path: Path, mode: str) -> None:
    attempt(tmp_path, HostConfig(cgroupns_mode=mode))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("mode", ["host", "private"])
def test_cve_2023_25809_without_a_filter(tmp_path: Path, mode: str, *, nested: bool) -> None:
    """The mounts hold by themselves, even for root of a user namespace."""
    unfiltered = HostConfig(cgroupns_mode=mode, security_opt=UNCONFINED)
    attempt(tmp_path, unfiltered, nested=nested)


@pytest.mark.parametrize("network", ["none", "host"])
@pytest.mark.parametrize("mode", ["host", "private"])
def test_cve_2023_25809_in_a_user_namespace(tmp_path: Path, mode: str, network: str) -> None:
    """On the host's network no sysfs can be made: what is there is a copy of the host's /sys."""
    unfiltered = HostConfig(cgroupns_mode=mode, network_mode=network, security_opt=UNCONFINED)
    attempt(tmp_path, unfiltered, remapped=True)


def test_cve_2023_25809_what_comes_with_a_copy_of_sys_is_read_only(tmp_path: Path) -> None:
    """The host's own cgroup mounts are below it, and nothing is mounted over them here."""

    def body(bundle: Bundle) -> None:
        give_user_namespace(bundle)
        kept = [m for m in bundle.config["mounts"] if m["destination"] != "/sys/fs/cgroup"]
        bundle.config["mounts"] = kept
        lines = bundle.run("cat", "/proc/self/mountinfo").stdout.splitlines()
        found = {line.split()[4]: line.split()[5].split(",") for line in lines}
        below = {place: words for place, words in found.items() if place.startswith("/sys/")}
        assert [place for place in below if place.startswith("/sys/fs/cgroup")]
        assert [place for place, words in below.items() if "ro" not in words] == []

    in_container(tmp_path, body, HostConfig(network_mode="host"))


@pytest.mark.parametrize("mode", ["host", "private"])
def test_the_host_s_own_mounts_keep_their_options(tmp_path: Path, mode: str) -> None:
    """Mounted once more, cgroup2 would take the new options for all: no more nsdelegate."""

    def body(bundle: Bundle) -> None:
        before = Path("/proc/self/mountinfo").read_text()
        assert bundle.run("grep", " /sys/fs/cgroup ", "/proc/self/mountinfo").code == 0
        assert Path("/proc/self/mountinfo").read_text() == before

    in_container(tmp_path, body, HostConfig(cgroupns_mode=mode))


def test_cve_2023_25809_with_more_capabilities(tmp_path: Path) -> None:
    attempt(tmp_path, HostConfig(cap_add=["SYS_PTRACE", "NET_ADMIN"], readonly_rootfs=True))


def test_the_limit_is_the_container_s(tmp_path: Path) -> None:
    """What was asked for is what the kernel holds, and a hungry process dies of it."""

    limits = HostConfig(memory=32 << 20, memory_swap=32 << 20, pids_limit=16)

    def body(bundle: Bundle) -> None:
        hungry = "a=x; while true; do a=$a$a; done"
        result = bundle.shell(hungry)
        assert result.code == 137
        assert result.oom_killed
        bomb = docker_bundle(tmp_path / "bomb", limits)
        started = bomb.shell("n=0; while sleep 9 & do n=$((n+1)); [ $n = 40 ] && break; done")
        assert started.code != 0
        assert "fork" in started.stderr

    in_container(tmp_path, body, limits)
