"""The document of ``docker run image true``, by hand from SECURITY.md section 3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import oci_kit as kit
import pytest

from cais.engine.oci import capabilities, masks, namespaces
from cais.snapshots.snapshotter import Mount
from cais.spec import runtime
from cais.spec.container import ContainerConfig, HostConfig

if TYPE_CHECKING:
    from pathlib import Path

CAPABILITIES = [
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW"),
    *("CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE"),
    *("CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"),
]
GOLDEN = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": ["true"],
        "env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=box",
        ],
        "cwd": "/",
        "capabilities": {
            "bounding": CAPABILITIES,
            "permitted": CAPABILITIES,
            "effective": CAPABILITIES,
        },
        "noNewPrivileges": False,
        "oomScoreAdj": 0,
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "box",
    "mounts": [
        {
            "destination": "/proc",
            "type": "proc",
            "source": "proc",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": [
                *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            ],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["ro", "nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        },
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
        "cgroupsPath": "/cais/" + "c" * 64,
        "resources": {
            "devices": [
                {"allow": False, "access": "rwm"},
                *(
                    {"allow": True, "type": "c", "major": a, "minor": b, "access": "rwm"}
                    for a, b in ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
                ),
                {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            ],
        },
        "sysctl": {
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        },
        "maskedPaths": [
            *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
            *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
            *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
        ],
        "readonlyPaths": [
            *("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
        ],
    },
}


@pytest.fixture(autouse=True)
def fixed_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the two places that look at this kernel see the same everywhere."""
    monkeypatch.setattr(masks, "CPUS", tmp_path)
    ipv4 = tmp_path / "net/ipv4"
    ipv4.mkdir(parents=True)
    for name in ("ip_unprivileged_port_start", "ping_group_range"):
        (ipv4 / name).touch()
    monkeypatch.setattr(namespaces, "PROC_SYS", tmp_path)


def test_the_default_document() -> None:
    built = kit.build()
    assert built.config == GOLDEN
    assert built.cais == {
        "rootfs": [],
        "files": [],
        "user": "",
        "additional_groups": [],
        "init": False,
        "network": None,
        "seccomp": None,
        "streams_owner": None,
    }
    runtime.validate(json.loads(json.dumps(built.config)))


def test_the_capability_mask_is_docker_s() -> None:
    """SECURITY.md A12: CapBnd of a default container; nothing inheritable, nothing ambient."""
    sets = kit.build().config["process"]["capabilities"]
    assert f"{capabilities.mask(sets['bounding']):016x}" == "00000000a80425fb"
    assert set(sets) == {"bounding", "permitted", "effective"}


def test_privileged_has_no_inheritable_capabilities_either() -> None:
    sets = kit.build(HostConfig(privileged=True)).config["process"]["capabilities"]
    assert capabilities.mask(sets["bounding"]) == kit.ALL_CAPABILITIES
    assert set(sets) == {"bounding", "permitted", "effective"}


def test_on_v2_the_cgroup_namespace_is_private() -> None:
    kinds = [entry["type"] for entry in kit.build(on=kit.host(2)).config["linux"]["namespaces"]]
    assert kinds == ["mount", "network", "uts", "pid", "ipc", "cgroup"]


def test_thermal_counters_are_masked_where_they_are(tmp_path: Path) -> None:
    for name in ("cpu0", "cpu1", "cpu10"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    (tmp_path / "cpufreq/thermal_throttle").mkdir(parents=True)
    masked = kit.build().config["linux"]["maskedPaths"]
    assert masked[12:] == [
        f"{tmp_path}/{name}/thermal_throttle" for name in ("cpu0", "cpu1", "cpu10")
    ]


def test_nothing_of_an_image_s_labels_reaches_the_document() -> None:
    """SECURITY.md A23, A24: labels steer nothing, under whatever name."""
    labels = dict.fromkeys(
        (
            *("org.systemd.property.ExecStart", "run.oci.handler", "run.oci.keep_original_groups"),
            *("io.cais.seccomp", "cais.privileged", "io.containerd.runc.v2", "io.kubernetes.cri"),
            *("com.docker.network.endpoint", "seccomp", "rootfs", "x\ny"),
        ),
        "unconfined",
    )
    plain = ContainerConfig(cmd=["true"], hostname="box")
    labelled = ContainerConfig(cmd=["true"], hostname="box", labels=labels)
    assert kit.build(config=labelled) == kit.build(config=plain)


def test_annotations_are_the_caller_s_alone() -> None:
    built = kit.build(HostConfig(annotations={"org.example": "1"}))
    assert built.config["annotations"] == {"org.example": "1"}
    assert "annotations" not in kit.build().config


def test_an_environment_with_newlines_stays_in_its_place() -> None:
    """SECURITY.md A23: values are values, whatever is in them."""
    config = ContainerConfig(cmd=["true"], hostname="box", env=["A=1\nB=2", "C=%s\r"])
    document = json.loads(json.dumps(kit.build(config=config).config))
    assert document["process"]["env"][2:] == ["A=1\nB=2", "C=%s\r"]
    assert {
        **document,
        "process": {**document["process"], "env": GOLDEN["process"]["env"]},
    } == GOLDEN  # type: ignore[index]


def test_the_root_is_the_snapshot_s_mounts() -> None:
    overlay = Mount("overlay", "overlay", "", ("lowerdir=/a:/b", "upperdir=/c", "workdir=/d"))
    assert kit.build(rootfs=[overlay]).cais["rootfs"] == [
        {
            "type": "overlay",
            "source": "overlay",
            "target": "",
            "options": ["lowerdir=/a:/b", "upperdir=/c", "workdir=/d"],
        }
    ]


def test_the_user_is_looked_up_by_the_child() -> None:
    config = ContainerConfig(cmd=["true"], user="nobody:users")
    built = kit.build(HostConfig(group_add=["audio", "7"]), config)
    assert built.cais["user"] == "nobody:users"
    assert built.cais["additional_groups"] == ["audio", "7"]
    assert built.config["process"]["user"]["uid"] == 0


@pytest.mark.parametrize(
    ("asked", "pid_mode", "expected"),
    [(None, "", False), (True, "", True), (False, "", False), (True, "host", False)],
)
def test_init(*, asked: bool | None, pid_mode: str, expected: bool) -> None:
    built = kit.build(HostConfig(init=asked, pid_mode=pid_mode))
    assert built.cais["init"] is expected


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("", "/cais/"),
        ("/other", "/other/"),
        ("other/deeper/", "/other/deeper/"),
        ("/../../../etc", "/etc/"),
    ],
)
def test_the_cgroup_parent_cannot_climb(parent: str, path: str) -> None:
    built = kit.build(HostConfig(cgroup_parent=parent))
    assert built.config["linux"]["cgroupsPath"] == path + "c" * 64


def test_a_terminal() -> None:
    config = ContainerConfig(cmd=["sh"], tty=True, hostname="box")
    process = kit.build(HostConfig(console_size=(24, 80)), config).config["process"]
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert process["env"][-1] == "TERM=xterm"


def test_command_directory_and_name() -> None:
    config = ContainerConfig(
        entrypoint=["/e", "1"], cmd=["2"], working_dir="/w", domainname="example.org"
    )
    built = kit.build(config=config)
    assert built.config["process"]["args"] == ["/e", "1", "2"]
    assert built.config["process"]["cwd"] == "/w"
    assert built.config["hostname"] == "c" * 12
    assert built.config["domainname"] == "example.org"
