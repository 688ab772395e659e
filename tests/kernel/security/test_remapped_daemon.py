"""A14, A15, A30, E7 with ``--userns-remap``: what root of a container is to the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from security_daemon import connected, public_directory, running
from test_a14_cgroups import ATTEMPTS, UNCONFINED

from cais.testing.remapped_daemon import FIRST, RemappedDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

UNDONE = r"""
for directory in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e $directory/cgroup.procs ] || continue
    mount -o remount,bind,rw $directory 2>/dev/null
    for file in $directory/cgroup.procs $directory/release_agent $directory/devices.allow; do
        [ -e $file ] || continue
        echo seen
        (: >>$file) 2>/dev/null && echo "CHANGED $file"
    done
    mkdir $directory/mine 2>/dev/null && rmdir $directory/mine && echo "CHANGED $directory/mine"
done
true
"""


@pytest.fixture(scope="module")
def remapped(busybox_tar: bytes) -> Iterator[RemappedDaemon]:
    with public_directory() as directory, RemappedDaemon(directory) as daemon:
        daemon.docker("load", stdin=busybox_tar)
        yield daemon


@pytest.fixture
def client(remapped: RemappedDaemon) -> Iterator[Any]:
    with connected(remapped) as made:
        yield made


def run(client: Any, script: str, **options: Any) -> list[str]:
    said: bytes = client.containers.run("busybox", ["sh", "-c", script], remove=True, **options)
    return said.decode().splitlines()


@pytest.mark.parametrize("mode", ["host", "private"])
def test_cve_2023_25809_control_groups(client: Any, mode: str) -> None:
    """Without a filter; and with every capability of its user namespace, its mounts undone."""
    options = {"cgroupns": mode, "security_opt": UNCONFINED}
    assert set(run(client, ATTEMPTS, **options)) == {"seen"}
    assert set(run(client, UNDONE, cap_add=["ALL"], **options)) == {"seen"}


def test_cve_2021_21284_no_way_into_the_data_root(remapped: RemappedDaemon, client: Any) -> None:
    """Container root has left its namespaces, with its id, while containers are made."""
    volume = client.volumes.create("target").attrs["Mountpoint"]
    sentinel = Path("/etc/passwd").stat()
    swap = 'for d in "$@"; do ls $d || mv $d $d.x || ln -s /etc $d && echo IN; done'
    places = [remapped.data_root, remapped.exec_root, volume, Path(volume).parent]
    looking = ["find", str(remapped.data_root), str(remapped.exec_root), volume]
    for _ in range(3):
        run(client, "touch /v/f", volumes=["target:/v"])
        for command in (["sh", "-c", swap, "sh", *map(str, places)], looking):
            done = subprocess.run(
                command, user=FIRST, group=FIRST, extra_groups=[], capture_output=True, check=False
            )
            found = set(done.stdout.decode().split()) - {
                *(str(remapped.data_root), str(remapped.exec_root))
            }
            assert found == set()
    now = Path("/etc/passwd").stat()
    assert (now.st_uid, now.st_gid, now.st_mode) == (0, 0, sentinel.st_mode)
    assert [os.lstat(path).st_uid for path in places] == [0, 0, FIRST, 0]
    layers = remapped.data_root / "snapshots"
    assert {path.lstat().st_uid for path in layers.iterdir()} == {0}


def test_cve_2021_21284_nothing_of_the_host_s_is_its_own(client: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("root's\n")
    (tmp_path / "link").symlink_to("/etc/passwd")
    before = {path: (path.lstat().st_uid, path.lstat().st_mode) for path in tmp_path.iterdir()}
    attack = (
        "cd /b; for f in . file link; do chown -h 0:0 $f; chown 5:5 $f; chmod 4777 $f; mv $f x;"
        "rm -f $f; echo x >$f; done; mknod d c 1 1; mount -o remount,suid,dev /b; id -u"
    )
    options = {"cap_add": ["ALL"], "security_opt": UNCONFINED}
    assert run(client, attack, volumes=[f"{tmp_path}:/b"], **options) == ["0"]
    assert {p: (p.lstat().st_uid, p.lstat().st_mode) for p in tmp_path.iterdir()} == before
    assert (tmp_path / "file").read_text() == "root's\n"


def test_cve_2022_0492_capabilities_are_those_of_its_namespaces(client: Any) -> None:
    """All of them, and no filter: none reaches a resource of the host's."""
    attack = r"""
    for file in /proc/sys/kernel/core_pattern /proc/sys/vm/overcommit_memory /proc/sysrq-trigger \
            /proc/sys/kernel/modprobe /proc/1/oom_score_adj /proc/self/uid_map; do
        (echo -1 >$file) 2>/dev/null && echo "WROTE $file"
    done
    mkdir /m; for kind in cgroup ext4 debugfs tracefs securityfs; do
        mount -t $kind none /m 2>/dev/null && echo "MOUNTED $kind"
    done
    mknod /disk b 8 0 2>/dev/null && (: </disk) 2>/dev/null && echo "READ a disk"
    dmesg -c 2>/dev/null | grep -q . && echo "CLEARED the log"
    date -s 2001-01-01 2>/dev/null >&2; [ $(date +%Y) = 2001 ] && echo "SET the clock"
    swapoff -a 2>/dev/null; hostname own; hostname
    """
    lines = run(client, attack, cap_add=["ALL"], security_opt=UNCONFINED)
    assert lines == ["own"]


@pytest.mark.parametrize("kind", ["link", "fifo", "zero", "self"])
def test_cve_2024_9676_what_an_image_has_as_its_accounts(
    remapped: RemappedDaemon, client: Any, kind: str
) -> None:
    """They are looked at for a name alone, in the container, and never for its maps."""
    make = {
        "link": "ln -s /../../../../etc/shadow passwd",
        "fifo": "mkfifo passwd",
        "zero": "mknod passwd c 1 5",
        "self": "ln -s /proc/self/mem passwd",
    }[kind]
    with running(client, "sh", "-c", f"cd /etc; rm passwd; {make}", userns_mode="host") as made:
        made.wait()
        made.commit("accounts", kind)
    try:
        image = f"accounts:{kind}"
        for user in ("", "7", "root"):
            command = ("run", "--rm", "-u", user, image, "cat", "/proc/self/uid_map")
            done = remapped.docker(*command, check=False)
            if done.returncode:
                assert "/etc/passwd" in done.stderr or "unable to find user root" in done.stderr
            else:
                assert done.stdout.split()[:2] == ["0", str(FIRST)]
            assert "$" not in done.stderr, "a line of the host's shadow file"
    finally:
        client.images.remove(f"accounts:{kind}", force=True)


def test_its_processes_are_nobody_s_but_its_own(client: Any) -> None:
    """Two containers with the same ids on the host cannot reach each other's namespaces."""
    with running(client, "sleep", "600") as one, running(client, "sleep", "600") as other:
        command = ["readlink", "/proc/self/ns/user"]
        spaces = [each.exec_run(command).output for each in (one, other)]
        assert all(space.startswith(b"user:[") for space in spaces)
        assert spaces[0] != spaces[1]
