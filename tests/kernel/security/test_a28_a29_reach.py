"""A28, A29: what a container on the host's network, or another user of the host, can reach."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from security_daemon import MaskedDaemon, public_directory

from cais.testing.archives import busybox_rootfs, docker_archive, tar_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
STRANGER = 65534
SCAN = """
grep -o ' @.*' /proc/net/unix
for f in tcp tcp6 udp udp6 raw; do sed "s/^/$f/" /proc/net/$f; done
"""


def test_cve_2020_15257_nothing_of_the_engine_listens_in_its_network(daemon: TestDaemon) -> None:
    """The daemon has a network namespace of its own in the tests: whatever listens is ours."""
    output = daemon.docker("run", "--rm", "--network", "host", "busybox", "sh", "-c", SCAN).stdout
    lines = [line.split() for line in output.splitlines() if "local_address" not in line]
    assert [line for line in lines if line and line[0].startswith("@")] == []
    assert [line for line in lines if len(line) > 4 and line[4] == LISTENING] == []
    assert [line for line in lines if line and line[0].startswith(("udp", "raw"))] == []


def test_cve_2020_15257_the_sockets_there_are_are_private_paths(daemon: TestDaemon) -> None:
    roots = (daemon.data_root, daemon.exec_root, daemon.directory)
    sockets = {path for root in roots for path in below(root) if path.is_socket()}
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in sockets}
    assert found.pop(daemon.socket_path) == 0o660
    assert found == {daemon.exec_root / "shim.sock": 0o600}


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_cve_2021_41091_another_user_sees_nothing(umask: str) -> None:
    """The tests' own directory lets everybody in: only the engine's modes keep a stranger out."""
    suid = tar_of({"bin/suid": Path("/bin/busybox").read_bytes(), "open": None})
    with public_directory() as directory, MaskedDaemon(directory, umask=umask) as daemon:
        image = docker_archive("box:latest", [busybox_rootfs(), suid], Cmd=["sh"])
        daemon.docker("load", stdin=image)
        script = "chmod 4755 /bin/suid; umask 0; echo secret >/open/secret; exec sleep 60"
        daemon.docker("run", "-d", "--name", "box", "-v", "vol:/v", "box", "sh", "-c", script)
        while daemon.docker("exec", "box", "test", "-e", "/open/secret", check=False).returncode:
            pass
        # Inside, the umask of whoever started the daemon does not show.
        inside = "cat /etc/hosts /etc/resolv.conf /etc/hostname && ls -d /v/. && touch /tmp/x"
        daemon.docker("exec", "-u", "1000", "box", "sh", "-c", inside)
        secrets = [path for path in below(daemon.data_root) if path.name in {"secret", "suid"}]
        assert len(secrets) >= 2
        assert any(path.stat().st_mode & stat.S_ISUID for path in secrets)
        assert seen_by_stranger(daemon.data_root) == ""
        assert allowed_to_stranger(daemon.exec_root) == []
        for path in secrets:
            assert reached_by_stranger(path) is False
        daemon.docker("rm", "-f", "box")


def below(root: Path) -> Iterator[Path]:
    """Yield all there is below a directory; what the daemon removes meanwhile may be missing."""
    for directory, names, files in os.walk(root):
        yield from (Path(directory, name) for name in (*names, *files))


def seen_by_stranger(root: Path) -> str:
    """Return the names another user finds below a directory."""
    return as_stranger("find", str(root), "-mindepth", "1").stdout


def allowed_to_stranger(root: Path) -> list[str]:
    """Return what another user can read or write below a directory whose names may be known."""
    known = [path for path in below(root) if not path.is_symlink()]
    test = 'for p do test -r "$p" && echo "$p"; test -w "$p" && echo "$p"; done; true'
    done = as_stranger("sh", "-c", test, "sh", *map(str, known))
    return done.stdout.split()


def reached_by_stranger(path: Path) -> bool:
    return as_stranger("test", "-e", str(path)).returncode == 0


def as_stranger(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
    )
