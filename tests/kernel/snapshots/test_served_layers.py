"""The process that serves a root by FUSE: out of the container's reach, and gone with it."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest
from driver_kit import layer, on_driver, opened

from cais.runtime.launch import LaunchError
from cais.snapshots.differences import DifferenceSnapshotter
from cais.testing.bundles import Bundle, Capture, end, make_rootfs
from cais.testing.isolation import children
from cais.testing.nursery import nursery

PLACE = "fuse-overlayfs"


def fill(top: Path) -> None:
    make_rootfs(top.parent / "busybox")
    shutil.copytree(top.parent / "busybox", top, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(top.parent / "busybox")


def served(directory: Path, snapshotter: DifferenceSnapshotter) -> Bundle:
    layer(snapshotter, "base", None, fill)
    layer(snapshotter, "upper", "base", lambda top: (top / "from_upper").touch())
    snapshotter.prepare("container", "upper")
    bundle = Bundle(directory / "bundle")
    [root] = [asdict(each) for each in snapshotter.mounts("container")]
    bundle.extras["rootfs"] = [{**root, "options": list(root["options"])}]
    return bundle


def on_served(
    tmp_path: Path, body: Callable[[Bundle, Path], None], *, has_nursery: bool = False
) -> None:
    def run(top: Path) -> None:
        keeper = nursery() if has_nursery else nullcontext()
        with keeper, opened(PLACE, top / "snapshots") as snapshotter:
            body(served(top, snapshotter), Path(snapshotter.layer("container").path))

    on_driver(PLACE, tmp_path, run)


def servers() -> set[int]:
    return {pid for pid in children() if _name(pid) == PLACE[:15]}


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("has_nursery", [False, True])
def test_the_container_sees_its_root_and_nobody_who_serves_it(
    tmp_path: Path, *, has_nursery: bool
) -> None:
    def body(bundle: Bundle, written: Path) -> None:
        before = os.listdir("/proc/self/fd")
        result = bundle.shell("ls -d /bin /from_upper; echo x > /new; ls /proc | grep -c '^[0-9]'")
        assert result.stdout.split() == ["/bin", "/from_upper", "3"]  # sh, ls, grep
        assert (written / "new").read_text() == "x\n"
        assert os.listdir("/proc/self/fd") == before
        os.wait()  # whoever served it has ended by itself

    on_served(tmp_path, body, has_nursery=has_nursery)


def test_it_is_in_no_group_or_namespace_of_the_container(tmp_path: Path) -> None:
    def body(bundle: Bundle, _: Path) -> None:
        with Capture() as capture:
            running = bundle.start("sleep", "1000", stdio=capture.stdio)
            [server] = servers()
            for kind in ("mnt", "pid", "net", "ipc", "uts"):
                pids = ("self", running.pid, server)
                ours, inside, its_own = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in pids)
                assert its_own != inside
                assert (its_own == ours) == (kind != "mnt")
            assert PLACE not in Path(f"/proc/{server}/mountinfo").read_text()
            groups = [Path(f"/proc/{pid}/cgroup").read_text() for pid in ("self", server)]
            assert groups[0] == groups[1]
            links = [os.readlink(f"/proc/{server}/fd/{fd}") for fd in (0, 1, 2, 3)]
            assert links == ["/dev/null", "/dev/null", "/dev/null", "/dev/fuse"]
            assert Path(f"/proc/{server}/environ").read_bytes() == b""
            os.kill(running.pid, signal.SIGKILL)
            end(running)
            bundle.destroy()
            os.waitpid(server, 0)

    on_served(tmp_path, body)


def test_a_container_whose_server_was_killed_can_be_ended(tmp_path: Path) -> None:
    def body(bundle: Bundle, _: Path) -> None:
        with Capture() as capture:
            script = "echo begun > /begun; while [ -e /begun ]; do usleep 1000; done; echo lost"
            running = bundle.start("sh", "-c", script, stdio=capture.stdio)
            [server] = servers()
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            end(running)
            bundle.destroy()

    on_served(tmp_path, body)


@pytest.mark.parametrize("has_nursery", [False, True])
def test_a_start_that_fails_leaves_no_server(tmp_path: Path, *, has_nursery: bool) -> None:
    def body(bundle: Bundle, _: Path) -> None:
        with pytest.raises(LaunchError, match="executable file not found"):
            bundle.run("absent")
        os.wait()
        bundle.extras["rootfs"][0]["options"].append("upperdir=/absent")
        with pytest.raises(LaunchError, match="fuse-overlayfs"):
            bundle.run("true")

    on_served(tmp_path, body, has_nursery=has_nursery)


def test_it_cannot_be_shown_mapped(tmp_path: Path) -> None:
    def body(bundle: Bundle, _: Path) -> None:
        bundle.extras["rootfs"][0]["options"].append("idmap")
        mapping = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
        bundle.linux["namespaces"].append({"type": "user"})
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        with pytest.raises(Exception, match="cannot show its layers ID-mapped"):
            bundle.run("true")

    on_served(tmp_path, body)
