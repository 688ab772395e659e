"""Section 3 of the threat sheet: the exact values a default container finds.

What is masked and read-only is in ``test_a25_masks_and_devices.py``, capability sets in
``test_a12_a21_credentials.py`` and ``test_daemon_walls.py``, calls in ``test_a15_a26_calls.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from docker_bundle import cgroup_parent, docker_bundle, in_container

from cais.linux.cgroups import detect
from cais.spec.container import HostConfig
from cais.testing.bundles import Bundle, Capture, end, read_terminal

HARDENED = {"nosuid", "noexec", "nodev"}
# 3.4: destination -> (type, options of the mount, options of the file system)
MOUNTS = {
    "/proc": ("proc", {"rw", *HARDENED}, set()),
    "/dev": ("tmpfs", {"rw", "nosuid"}, {"mode=755", "size=65536k"}),
    "/dev/pts": ("devpts", {"rw", "nosuid", "noexec"}, {"gid=5", "mode=620", "ptmxmode=666"}),
    "/sys": ("sysfs", {"ro", *HARDENED}, set()),
    "/dev/mqueue": ("mqueue", {"rw", *HARDENED}, set()),
    "/dev/shm": ("tmpfs", {"rw", *HARDENED}, {"size=65536k"}),
}
# 3.5
NODES = {
    "null": "1:3",
    "zero": "1:5",
    "full": "1:7",
    "random": "1:8",
    "urandom": "1:9",
    "tty": "5:0",
}
LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
DEVICE_RULES = {
    *("c *:* m", "b *:* m", "c 136:* rwm", "c 5:2 rwm", "c 5:1 rwm", "c 10:200 rwm"),
    *(f"c {numbers} rwm" for numbers in NODES.values()),
}


def options_of(mountinfo: str) -> dict[str, tuple[str, set[str], set[str]]]:
    """Return type and options by mount point; times of access are left out."""
    found = {}
    for line in mountinfo.splitlines():
        mount, _, system = line.partition(" - ")
        words, kind = mount.split(" "), system.split(" ")
        found[words[4]] = (
            kind[0],
            set(words[5].split(",")) - {"relatime"},
            set(kind[2].split(",")),
        )
    return found


def test_mounts(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        found = options_of(bundle.run("cat", "/proc/self/mountinfo").stdout)
        for place, (kind, options, data) in MOUNTS.items():
            assert found[place][:2] == (kind, options), place
            assert data <= found[place][2], place
        controlled = [place for place in found if place.startswith("/sys/fs/cgroup")]
        assert controlled
        for place in controlled:
            assert found[place][1] == {"ro", *HARDENED}, place

    in_container(tmp_path, body)


@pytest.mark.parametrize("terminal", [False, True])
def test_devices(tmp_path: Path, terminal: bool) -> None:
    script = (
        "cd /dev; for n in *; do"
        ' if [ -L $n ]; then echo "$n $(readlink $n)";'
        ' else stat -c "%n %F %a %u:%g %t:%T" $n; fi; done'
    )

    def body(bundle: Bundle) -> None:
        if terminal:
            bundle.process["terminal"] = True
            running = bundle.start("sh", "-c", script, stdio=None)
            assert running.terminal_fd is not None
            text = read_terminal(running.terminal_fd)
            end(running)
            bundle.destroy()
        else:
            text = bundle.shell(script).stdout
        lines = dict(line.split(" ", 1) for line in text.splitlines())
        for name, numbers in NODES.items():
            major, minor = (f"{int(number):x}" for number in numbers.split(":"))
            assert lines.pop(name) == f"character special file 666 0:0 {major}:{minor}"
        for name, target in LINKS.items():
            assert lines.pop(name) == target
        assert ("core" in lines) is os.path.exists("/proc/kcore")
        assert lines.pop("core", "/proc/kcore") == "/proc/kcore"
        assert ("console" in lines) is terminal
        if terminal:
            assert lines.pop("console").startswith("character special file 620 0:5 88:")
        assert set(lines) == {"mqueue", "pts", "shm"}

    in_container(tmp_path, body)


def test_device_rules(tmp_path: Path) -> None:
    """Denied unless listed (GO-2022-0396 had it the other way round)."""
    root = detect().mounts.get("devices")
    if root is None:
        pytest.skip("control groups v2 have no list of devices to read")

    def body(bundle: Bundle) -> None:
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
        path = bundle.linux["cgroupsPath"]
        with open(f"{root}{path}/devices.list", encoding="ascii") as file:
            assert set(file.read().splitlines()) == DEVICE_RULES
        os.kill(init.pid, 9)
        end(init)
        bundle.destroy()

    in_container(tmp_path, body)


def test_privileges_limits_and_parameters(tmp_path: Path) -> None:
    script = """
grep -E 'NoNewPrivs|Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status
(cd /proc/sys/net/ipv4; grep . ip_unprivileged_port_start ping_group_range)
df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2
umask; pwd; cat /proc/self/oom_score_adj; cat /proc/self/limits
"""

    def body(bundle: Bundle) -> None:
        lines = bundle.shell(script).stdout.splitlines()
        ours = Path("/proc/self/limits").read_text().splitlines()
        sets = {"CapPrm": "00000000a80425fb", "CapEff": "00000000a80425fb"}
        sets |= {"CapBnd": "00000000a80425fb", "CapInh": "0" * 16, "CapAmb": "0" * 16}
        assert dict(line.split(":\t") for line in lines[:6]) == {**sets, "NoNewPrivs": "0"}
        assert lines[6:8] == [
            "ip_unprivileged_port_start:0",
            "ping_group_range:0\t2147483647",
        ]
        assert lines[8:12] == ["65536", "0022", "/", "0"]
        assert lines[12:] == ours  # none is set: Docker's containers have the daemon's

    in_container(tmp_path, body)


def test_namespaces(tmp_path: Path) -> None:
    """3.4: mount, network, uts, pid, ipc of its own; the cgroup namespace as the hierarchy is."""

    def body(bundle: Bundle) -> None:
        kinds = ("mnt", "net", "uts", "pid", "ipc", "cgroup", "user")
        script = "".join(f"readlink /proc/self/ns/{kind};" for kind in kinds)
        theirs = bundle.shell(script).stdout.split()
        same = {kind for kind, name in zip(kinds, theirs, strict=True)
                if name == os.readlink(f"/proc/self/ns/{kind}")}  # fmt: skip
        assert same == ({"user"} if detect().kind == "v2" else {"user", "cgroup"})

    in_container(tmp_path, body)


def test_the_control_group_is_below_the_engine_s(tmp_path: Path) -> None:
    """docker-bench 2.10, 5.25: the parent is the engine's; ``..`` in what was asked stays below."""

    plain = docker_bundle(tmp_path / "plain")
    assert plain.linux["cgroupsPath"] == f"{cgroup_parent()}/{plain.id}"
    escaping = docker_bundle(tmp_path / "up", HostConfig(cgroup_parent="../../../x/../y"))
    assert escaping.linux["cgroupsPath"] == f"/y/{escaping.id}"
