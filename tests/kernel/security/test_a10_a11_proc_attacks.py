"""A6, A10, A11: nothing stands in for /proc, /sys or the root, or hides a part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from host_sentinel import attack

from cais.errors import InvalidArgumentError
from cais.runtime.launch import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.bundles import Bundle


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/tmp/fake", ".", "/proc", "{sentinel}"])
def test_cve_2019_19921_proc_or_sys_of_the_image_is_a_link(
    tmp_path: Path, sentinel: Path, name: str, target: str
) -> None:
    def body(bundle: Bundle) -> None:
        (bundle.rootfs / name).symlink_to(target.format(sentinel=sentinel))
        with pytest.raises(LaunchError, match="must not be a symbolic link"):
            bundle.run("true")

    attack(tmp_path, sentinel, body)


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("/proc", "tmpfs"),
        ("/proc/self", "bind"),
        ("/proc/sys", "tmpfs"),
        ("/proc/self/attr", "bind"),
        ("/", "bind"),
        ("/proc/../proc/sys", "bind"),
    ],
)
def test_cve_2019_16884_no_volume_over_proc_or_the_root(
    tmp_path: Path, sentinel: Path, destination: str, kind: str
) -> None:
    def body(bundle: Bundle) -> None:
        bundle.config["mounts"].append(
            {"destination": destination, "type": kind, "source": str(sentinel)}
        )
        with pytest.raises((LaunchError, InvalidArgumentError)):
            bundle.run("true")

    attack(tmp_path, sentinel, body)


def test_cve_2025_52881_parameters_go_to_the_new_proc_alone(tmp_path: Path, sentinel: Path) -> None:
    """What the image has below /proc, and a bind over a file of it, redirects no write."""

    def body(bundle: Bundle) -> None:
        fake = bundle.rootfs / "proc/sys/kernel"
        fake.mkdir(parents=True)
        (fake / "msgmax").symlink_to(sentinel / "file")
        (fake / "shmmax").symlink_to(sentinel / "ptmx")
        bundle.config["mounts"].append(
            {"destination": "/proc/uptime", "type": "bind", "source": "/proc/uptime"}
        )
        bundle.linux["sysctl"] = {"kernel.msgmax": "4321", "kernel.shmmax": "8765"}
        shown = bundle.shell("cat /proc/sys/kernel/msgmax /proc/sys/kernel/shmmax").stdout
        assert shown.split() == ["4321", "8765"]
        assert sorted(fake.iterdir()) == [fake / "msgmax", fake / "shmmax"]

    attack(tmp_path, sentinel, body)


def test_cve_2023_27561_no_volume_into_proc_through_a_link_or_instead_of_it(
    tmp_path: Path, sentinel: Path
) -> None:
    def body(bundle: Bundle) -> None:
        (bundle.rootfs / "way").symlink_to("/proc/self")
        bind = {"destination": "/way/attr", "type": "bind", "source": str(sentinel)}
        bundle.config["mounts"].append(bind)
        with pytest.raises(LaunchError, match="inside /proc"):
            bundle.run("true")
        bundle.config["mounts"] = [
            {"destination": "/proc", "type": "bind", "source": str(sentinel)}
        ]
        with pytest.raises(LaunchError, match="only a proc file system"):
            bundle.run("true")

    attack(tmp_path, sentinel, body)


@pytest.mark.parametrize("target", ["/", "..", "/bin/../.."])
def test_cve_2019_16884_no_volume_over_the_root_through_a_link(
    tmp_path: Path, sentinel: Path, target: str
) -> None:
    """It would be the root of every exec, which has no /proc and so none of its masks."""

    def body(bundle: Bundle) -> None:
        (bundle.rootfs / "way").symlink_to(target)
        bind = {"destination": "/way", "type": "bind", "source": str(sentinel)}
        bundle.config["mounts"].append(bind)
        with pytest.raises(LaunchError, match="the destination is the root itself"):
            bundle.run("true")

    attack(tmp_path, sentinel, body)


def test_allowed_binds_under_proc_work(tmp_path: Path, sentinel: Path) -> None:
    def body(bundle: Bundle) -> None:
        (tmp_path / "uptime").write_text("1.00 2.00\n")
        bundle.config["mounts"].append(
            {"destination": "/proc/uptime", "type": "bind", "source": str(tmp_path / "uptime")}
        )
        assert bundle.run("cat", "/proc/uptime").stdout == "1.00 2.00\n"

    attack(tmp_path, sentinel, body)
