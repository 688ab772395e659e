"""Kernel tests of device nodes: made, or bound where a user namespace cannot make them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from cais.errors import InvalidArgumentError
from cais.runtime import devices
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from pathlib import Path

BASE = 100000
DEVICES = [
    {
        "path": "/dev/own/c",
        "type": "c",
        "major": 1,
        "minor": 3,
        "fileMode": 0o640,
        "uid": 3,
        "gid": 4,
    },
    {"path": "/dev/b", "type": "b", "major": 7, "minor": 3},
    {"path": "/dev/u", "type": "u", "major": 1, "minor": 5, "fileMode": 0o600},
    {"path": "dev/p", "type": "p", "fileMode": 0o622},
    {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444},
]


def remapped(bundle: Bundle) -> None:
    subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
    mapping = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)


def without_dev(bundle: Bundle) -> None:
    """Leave /dev to the image."""
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    (bundle.rootfs / "dev").mkdir(exist_ok=True)


def test_every_kind_of_node(tmp_path: Path) -> None:
    # oci: linux.devices.type, .path, .major, .minor, .fileMode, .uid, .gid

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["devices"] = DEVICES
        result = bundle.shell("cd /dev; stat -c '%F|%a|%u:%g|%t:%T' own/c b u p zero")
        assert result.stdout.splitlines() == [
            "character special file|640|3:4|1:3",
            "block special file|666|0:0|7:3",
            "character special file|600|0:0|1:5",
            "fifo|622|0:0|0:0",
            "character special file|444|0:0|1:5",
        ]

    isolated(body)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({}, "major and minor are needed"),
        ({"major": 1}, "major and minor are needed"),
        ({"major": 4096, "minor": 1}, "no such numbers"),
        ({"major": 1, "minor": -1}, "no such numbers"),
    ],
)
def test_a_node_without_real_numbers_is_refused(numbers: dict[str, int], reason: str) -> None:
    entries = [{"path": "/dev/x", "type": "c", **numbers}]
    with pytest.raises(InvalidArgumentError, match=f"device /dev/x: {reason}"):
        devices.parse_devices(entries)


def test_a_user_namespace_gets_the_host_s_nodes(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        remapped(bundle)
        bundle.linux["devices"] = [
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/p", "type": "p"},
        ]
        script = "stat -c '%u %t:%T' /dev/null /dev/kmsg; stat -c %u:%F /dev/p; chmod 777 /dev/null"
        result = bundle.shell(script)
        assert result.stdout.splitlines() == ["65534 1:3", "65534 1:b", "0:fifo"]
        assert result.code == 1
        assert os.stat("/dev/null").st_mode & 0o777 == 0o666

    isolated(body)


def test_a_user_namespace_gets_no_other_device_than_asked_for(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        remapped(bundle)
        bundle.linux["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 3}]
        with pytest.raises(LaunchError, match=r"bind /dev/kmsg: .*it is not device 1:3"):
            bundle.run("true")

    isolated(body)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/null", path)])
def test_a_name_that_is_taken_is_an_error(tmp_path: Path, make: object) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        without_dev(bundle)
        assert callable(make)
        make(bundle.rootfs / "dev/own")
        device = {"path": "/dev/own", "type": "c", "major": 1, "minor": 3}
        bundle.linux["devices"] = [device]
        with pytest.raises(LaunchError, match="make device /dev/own: file exists"):
            bundle.run("true")

    isolated(body)


def test_a_node_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["devices"] = [{"path": "/proc/x", "type": "p"}]
        with pytest.raises(LaunchError, match="make device /proc/x: no such file"):
            bundle.run("true")

    isolated(body)


def test_what_is_the_device_already_stays(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        without_dev(bundle)
        os.mknod(bundle.rootfs / "dev/own", 0o20604, os.makedev(1, 3))
        (bundle.rootfs / "dev/null").touch()  # a default's name may be the image's
        device = {"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
        bundle.linux["devices"] = [device]
        result = bundle.shell("stat -c %a:%F /dev/own /dev/null")
        assert result.stdout.splitlines() == [
            "604:character special file",
            "644:regular empty file",
        ]

    isolated(body)


def test_a_node_is_bound_over_a_file_of_the_image_and_never_over_a_link(tmp_path: Path) -> None:
    def body() -> None:
        outside = tmp_path / "outside"
        outside.write_text("mine\n")
        bundle = Bundle(tmp_path / "b")
        without_dev(bundle)
        (bundle.rootfs / "dev/null").touch()
        (bundle.rootfs / "dev/zero").symlink_to("null")
        (bundle.rootfs / "dev/full").symlink_to(outside)
        remapped(bundle)
        result = bundle.shell("stat -c %t:%T /dev/null; readlink /dev/zero; readlink /dev/full")
        assert result.stdout.split() == ["1:3", "null", str(outside)]
        assert outside.read_text() == "mine\n"

    (tmp_path / "b").mkdir()
    isolated(body)
