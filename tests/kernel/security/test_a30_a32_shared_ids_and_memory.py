"""A30, A32: what a container shares with the host's users, and with other containers' memory."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker_bundle import give_user_namespace, in_container
from python_inside import script, volumes
from security_daemon import MaskedDaemon, connected, public_directory, running

from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.bundles import Bundle
    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
REMAPPED = 100000
MIB = 1 << 20


def test_cve_2021_21284_a_mapped_root_owns_nothing_of_the_host_s(tmp_path: Path) -> None:
    """In its container, among files of the host that were bound into it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("root's\n")
    (shared / "link").symlink_to("/etc/passwd")
    before = [(path.lstat().st_uid, path.lstat().st_mode) for path in sorted(shared.rglob("*"))]
    attack = (
        "cd /shared; for f in . file link; do chown -h 0:0 $f; chown 5:5 $f; chmod 4777 $f;"
        "mv $f x; rm -f $f; ln -sf /etc $f; echo x >$f; done; mknod d c 1 1; id -u"
    )

    def body(bundle: Bundle) -> None:
        give_user_namespace(bundle, REMAPPED)
        mount = {"destination": "/shared", "type": "bind", "source": str(shared)}
        bundle.config["mounts"].append({**mount, "options": ["rbind"]})
        assert bundle.shell(attack).stdout == "0\n"

    in_container(tmp_path, body)
    found = sorted(shared.rglob("*"))
    assert [(path.lstat().st_uid, path.lstat().st_mode) for path in found] == before
    assert (shared / "file").read_text() == "root's\n"


def test_cve_2021_21284_a_mapped_root_s_shell_on_the_host() -> None:
    """Somebody with the mapped id outside, while containers are made below the data root."""
    swap = "while :; do for d in {}/*; do mv $d $d.x && ln -s /etc $d && echo SWAPPED; done; done"
    with (
        public_directory() as directory,
        MaskedDaemon(directory) as daemon,
        contextlib.ExitStack() as stack,
    ):
        before = Path("/etc/passwd").stat()
        attackers = [
            stack.enter_context(as_mapped_root(swap.format(root)))
            for root in (daemon.data_root, daemon.exec_root, daemon.data_root / "containers")
        ]
        with connected(daemon) as client:
            client.images.load(image_archive())
            for _ in range(5):
                client.containers.run("busybox", ["true"], volumes=["vol:/v"], remove=True)
        for attacker in attackers:
            attacker.kill()
            assert attacker.communicate()[0] == b""
        after = Path("/etc/passwd").stat()
        assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


@contextlib.contextmanager
def as_mapped_root(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell script as the mapped id until the end of the block."""
    with subprocess.Popen(
        ["sh", "-c", script],
        user=REMAPPED,
        group=REMAPPED,
        extra_groups=[],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as attacker:
        try:
            yield attacker
        finally:
            attacker.kill()


def image_archive() -> bytes:
    from cais.testing.archives import busybox_archive

    return busybox_archive()


SEGMENT = f"""
key = libc.shmget(0, {8 * MIB}, 0o1600)
libc.shmat.restype = ctypes.c_void_p
ctypes.memset(libc.shmat(key, None, 0), 1, {8 * MIB})
with open("/dev/shm/" + str(os.getpid()) + os.uname().nodename, "wb") as file:
    try:
        file.write(bytes({8 * MIB}))
    except OSError as error:
        print(name_of(error.errno))
if os.fork() == 0:
    os.setsid()
    os.execv("/bin/sleep", ["sleep", "600"])
"""


def test_cve_2024_3056_containers_that_share_memory_and_end(daemon: TestDaemon) -> None:
    """Files in the shared /dev/shm stay within its size; no process of theirs stays at all.

    Segments of System V stay with the namespace, as they do with Docker, unless the kernel is
    told otherwise: ``kernel.shm_rmid_forced`` in the container that shares.
    """
    options = {"ipc_mode": "shareable", "shm_size": 32 * MIB}
    options["sysctls"] = {"kernel.shm_rmid_forced": "1"}
    with connected(daemon) as client, running(client, "sleep", "600", **options) as donor:
        before = set(daemon.processes())
        words = [f"container:{donor.id}"]
        for _ in range(8):
            done = daemon.docker("run", "--rm", "--ipc", *words, *volumes(), "busybox",
                                 *script(SEGMENT), check=False)  # fmt: skip
            assert done.returncode == 0, done.stderr
        assert "ENOSPC" in done.stdout
        assert b" 100% /dev/shm" in donor.exec_run(["df", "/dev/shm"])[1]
        segments = donor.exec_run(["cat", "/proc/sysvipc/shm"])[1].decode().splitlines()
        assert len(segments) == 1, segments  # the heading
        wait_until(lambda: set(daemon.processes()) <= before, daemon.processes)
        sleepers = [name for name in daemon.processes().values() if re.search("sleep", name)]
        assert len(sleepers) == 1
