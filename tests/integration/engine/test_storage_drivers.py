"""The daemon with each storage driver, on a disk of its own, driven by the docker CLI."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from cais.testing.archives import busybox_archive, busybox_rootfs, docker_archive, tar_of
from cais.testing.daemon import DaemonDiedError, TestDaemon
from cais.testing.peers import installed
from cais.testing.waiting import wait_until

DISK_BYTES = 1 << 30
DISKS = {"overlay2": "ext4", "vfs": "xfs", "fuse-overlayfs": "ext4", "btrfs": "btrfs"}


class DiskDaemon(TestDaemon):
    """A daemon whose data root is a file system of its own, which no other namespace sees."""

    def __init__(self, directory: Path, kind: str, *arguments: str) -> None:
        if kind not in Path("/proc/filesystems").read_text().split():
            pytest.skip(f"this kernel has no {kind}")
        super().__init__(directory, *arguments)
        self.disk = directory / "disk"
        with self.disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(
            [installed(f"mkfs.{kind}"), "-q", self.disk], check=True, capture_output=True
        )
        self._is_mounted = False

    def start(self, timeout_s: float = 60) -> None:
        if not self._is_mounted:
            self.data_root.mkdir()
            self.run_inside(["mount", "-o", "loop", str(self.disk), str(self.data_root)])
            self._is_mounted = True
        super().start(timeout_s)

    def with_driver(self, name: str) -> None:
        self.arguments = ("--storage-driver", name) if name else ()


def left_behind(daemon: TestDaemon) -> set[str]:
    """Return what containers could leave, and the programs that serve their roots."""
    found = dict(daemon.snapshot())
    servers = {line for line in found.pop("processes") if "fuse-overlayfs -o" in line}
    return servers.union(*found.values())


@pytest.mark.parametrize("driver", DISKS)
def test_the_life_of_a_container(tmp_path: Path, driver: str) -> None:
    if driver == "fuse-overlayfs":
        installed(driver)
    with DiskDaemon(tmp_path, DISKS[driver], "--storage-driver", driver) as daemon:
        assert daemon.docker("info", "--format", "{{.Driver}}").stdout.strip() == driver
        daemon.docker("load", stdin=busybox_archive())
        before = left_behind(daemon)
        write = "mkdir -p /made/in; rm /etc/group; echo kept > /file; sleep 1000"
        daemon.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", write)
        daemon.docker("exec", "one", "sh", "-c", "while ! [ -e /file ]; do usleep 1000; done")
        daemon.kill()
        daemon.start()
        assert daemon.docker("exec", "one", "cat", "/file").stdout == "kept\n"
        changed = daemon.docker("diff", "one").stdout.splitlines()
        assert {"A /file", "A /made", "A /made/in", "D /etc/group"} <= set(changed)
        assert not [line for line in changed if ".wh." in line]
        daemon.docker("export", "-o", str(tmp_path / "exported"), "one")
        with tarfile.open(tmp_path / "exported") as exported:
            names = exported.getnames()
        assert {"made", "made/in"} <= set(names)
        assert not [name for name in names if ".wh." in name]
        daemon.docker("stop", "-t", "0", "one")
        daemon.docker("start", "one")
        assert daemon.docker("exec", "one", "cat", "/file").stdout == "kept\n"
        daemon.docker("commit", "one", "derived")
        script = "cat /file; ls -a /made; ls /etc"
        shown = daemon.docker("run", "--rm", "derived", "sh", "-c", script).stdout
        assert shown.startswith("kept\n.\n..\nin\n")
        assert "group" not in shown.split()
        if shutil.which("runc"):
            foreign = ("run", "--rm", "--runtime", "runc", "derived", "cat", "/file")
            assert daemon.docker(*foreign).stdout == "kept\n"
        sizes = daemon.docker("ps", "-s", "--format", "{{.Size}}").stdout
        assert sizes.startswith("5B (virtual")
        graph = json.loads(daemon.docker("inspect", "-f", "{{json .GraphDriver}}", "one").stdout)
        assert (graph["Name"], graph["Data"] is None) == (driver, driver in ("vfs", "btrfs"))
        daemon.docker("rm", "-f", "one")
        assert daemon.docker("run", "--rm", "busybox", "cat", "/etc/group").returncode == 0
        # What is removed goes in the background.
        wait_until(lambda: left_behind(daemon) <= before, lambda: left_behind(daemon) - before)


def test_a_driver_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with DiskDaemon(tmp_path, "ext4", "--storage-driver", "vfs") as daemon:
        daemon.docker("load", stdin=busybox_archive())
        daemon.docker("create", "--name", "one", "busybox")
        daemon.stop()
        for name, why in {
            "zfs": "error initializing graphdriver: driver not supported: zfs",
            "btrfs": "has containers of the storage driver 'vfs': remove them first",
        }.items():
            daemon.with_driver(name)
            with pytest.raises(DaemonDiedError, match=why):
                daemon.start()
        daemon.with_driver("")
        daemon.start()
        assert daemon.docker("info", "--format", "{{.Driver}}").stdout == "vfs\n"
        daemon.docker("rm", "one")
        daemon.stop()
        daemon.with_driver("btrfs")
        why = r"prerequisites for driver not satisfied \(wrong filesystem\?\): btrfs"
        with pytest.raises(DaemonDiedError, match=why):
            daemon.start()
        daemon.with_driver("overlay2")
        daemon.start()
        assert daemon.docker("run", "--rm", "busybox", "echo", "images stay").returncode == 0


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_an_image_of_five_hundred_layers(tmp_path: Path, driver: str) -> None:
    layers = [busybox_rootfs()]
    layers += [tar_of({f"layer{number}": str(number).encode()}) for number in range(1, 500)]
    with TestDaemon(tmp_path, "--storage-driver", driver) as daemon:
        archive = docker_archive("deep:latest", layers, Cmd=["sh"])
        daemon.docker("load", stdin=archive, timeout_s=300)
        show = "ls -d /layer* | wc -l; cat /layer1 /layer499; echo own > /own; cat /own"
        shown = daemon.docker("run", "--name", "one", "deep", "sh", "-c", show, timeout_s=120)
        assert shown.stdout == "499\n1499own\n"
        refused = daemon.docker("commit", "one", check=False, timeout_s=120)
        assert "max depth exceeded" in refused.stderr
        archive = docker_archive("deeper:latest", [*layers, tar_of({"more": b"x"})])
        refused = daemon.docker("load", stdin=archive, check=False, timeout_s=300)
        assert "max depth exceeded" in refused.stderr


def test_a_data_root_on_an_overlay(tmp_path: Path) -> None:
    """As in a container: the kernel stacks nothing there, and makes no whiteouts."""
    daemon = OverlaidDaemon(tmp_path)
    layers = [busybox_rootfs(), tar_of({"etc": None, "etc/.wh.group": b"", "new": b"text"})]
    with daemon:
        assert daemon.docker("info", "--format", "{{.Driver}}").stdout == "vfs\n"
        daemon.docker("load", stdin=docker_archive("two:latest", layers, Cmd=["sh"]))
        script = "ls /etc | grep -c group; cat /new; rm /new"
        shown = daemon.docker("run", "--name", "one", "two", "sh", "-c", script, check=False)
        assert shown.stdout == "0\ntext"
        assert "D /new" in daemon.docker("diff", "one").stdout.splitlines()


class OverlaidDaemon(TestDaemon):
    """A daemon whose data root is on an overlay."""

    def start(self, timeout_s: float = 60) -> None:
        options = []
        for name in ("lower", "upper", "work", "data"):
            (self.directory / name).mkdir()
            options.append(f"{name}dir={self.directory}/{name}")
        overlay = ",".join(options[:3])
        self.run_inside(["mount", "-t", "overlay", "-o", overlay, "none", str(self.data_root)])
        super().start(timeout_s)
