"""A4: the host's null device lends itself as mask and as stdin, and stays as it is."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from docker_bundle import docker_bundle, remove_parent

from cais.linux import mount
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from pathlib import Path

ATTACK = "for f in /proc/keys /proc/self/fd/0; do chmod 600 $f; chown 1:1 $f; touch $f; done 2>&1"


def own_null(directory: Path) -> tuple[int, int, int]:
    """Make a node of the test's own this namespace's /dev/null; return its facts."""
    node = directory / "null"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    node.chmod(0o666)
    tree_fd = mount.clone_tree(str(node))
    mount.place_at(tree_fd, "/dev/null")
    os.close(tree_fd)
    return facts()


def facts() -> tuple[int, int, int]:
    status = os.stat("/dev/null")
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime_ns


def test_neither_mode_nor_owner_nor_time_can_be_changed(tmp_path: Path) -> None:
    def body() -> None:
        before = own_null(tmp_path)
        bundle = docker_bundle(tmp_path)
        bundle.process.pop("apparmorProfile", None)  # which would refuse it before the mount does
        result = bundle.shell(f"{ATTACK}; echo x >/proc/keys && echo written")
        assert "/proc/keys: Read-only file system" in result.stdout
        assert result.stdout.endswith("written\n")
        assert facts() == before
        remove_parent()
        mount.unmount("/dev/null")

    isolated(body)


def test_nor_by_an_exec(tmp_path: Path) -> None:
    def body() -> None:
        before = own_null(tmp_path)
        bundle = Bundle(tmp_path / "bundle")
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            bundle.execute(init, "sh", "-c", ATTACK)
            os.kill(init.pid, 9)
            end(init)
            bundle.destroy()
        assert facts() == before
        mount.unmount("/dev/null")

    isolated(body)


def test_without_a_null_device_inside_there_is_nothing_to_read(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path / "bundle")
        empty = tmp_path / "dev"
        empty.mkdir()
        bundle.config["mounts"] = [
            entry
            for entry in bundle.config["mounts"]
            if not entry["destination"].startswith("/dev")
        ]
        bundle.config["mounts"].append(
            {"destination": "/dev", "type": "bind", "source": str(empty), "options": ["bind"]}
        )
        result = bundle.shell("cat; readlink /proc/self/fd/0")
        assert result.code == 0, result.stderr
        assert result.stdout.startswith("pipe:")
        bundle.destroy()

    isolated(body)
