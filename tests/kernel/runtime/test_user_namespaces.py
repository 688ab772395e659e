"""Kernel tests of containers with a user namespace: root inside is nobody outside."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

from cais.testing.bundles import Bundle, Capture, end, read_terminal
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from pathlib import Path

BASE = 100000


def remapped(path: Path) -> Bundle:
    bundle = Bundle(path)
    subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
    mapping = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    return bundle


def test_root_is_mapped_and_the_root_is_its_own(tmp_path: Path) -> None:
    def body() -> None:
        bundle = remapped(tmp_path)
        bundle.process["oomScoreAdj"] = 77
        script = (
            "id -u; cat /proc/self/uid_map /proc/self/oom_score_adj; touch /new; ls -ln /new;"
            "echo x > /dev/null && cat /proc/keys; touch /proc/sys/kernel/msgmax"
        )
        result = bundle.shell(script)
        assert result.stdout.split()[:5] == ["0", "0", "100000", "65536", "77"]
        assert os.stat(bundle.rootfs / "new").st_uid == BASE
        assert result.stderr.count("Read-only") == 1

    isolated(body)


def test_mounts_come_from_places_the_mapped_user_cannot_reach(tmp_path: Path) -> None:
    def body() -> None:
        (tmp_path / "b").mkdir()
        bundle = remapped(tmp_path / "b")
        hidden = tmp_path / "hidden"
        (hidden / "data").mkdir(parents=True)
        (hidden / "data/file").write_text("seen\n")
        hidden.chmod(0o700)
        bundle.config["mounts"].append(
            {
                "destination": "/v",
                "type": "bind",
                "source": str(hidden / "data"),
                "options": ["rbind", "ro"],
            }
        )
        for name in ("upper", "work"):
            (hidden / name).mkdir()
            os.chown(hidden / name, BASE, BASE)
        options = [
            f"lowerdir={bundle.rootfs}",
            f"upperdir={hidden}/upper",
            f"workdir={hidden}/work",
        ]
        bundle.extras["rootfs"] = [{"type": "overlay", "options": options}]
        result = bundle.shell("cat /v/file; touch /made; mount -o remount,rw,bind /v; touch /v/x")
        assert result.stdout == "seen\n"
        assert (hidden / "upper/made").exists()
        assert not (hidden / "data/x").exists()

    isolated(body)


def test_exec_and_terminal(tmp_path: Path) -> None:
    def body() -> None:
        bundle = remapped(tmp_path)
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            result = bundle.execute(init, "sh", "-c", "id -u; cat /proc/self/uid_map")
            process = bundle.start_exec(init, "tty", stdio=None)
            assert process.terminal_fd is not None
            assert read_terminal(process.terminal_fd).strip() == "/dev/pts/0"
            end(process)
            signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
            end(init)
            bundle.destroy()
        assert result.stdout.split() == ["0", "0", "100000", "65536"]

    isolated(body)


def test_another_network_namespace(tmp_path: Path) -> None:
    def body() -> None:
        bundle = remapped(tmp_path)
        home = os.readlink("/proc/self/ns/net")
        bundle.linux["namespaces"].remove({"type": "network"})
        bundle.linux["namespaces"].append({"type": "network", "path": "/proc/self/ns/net"})
        result = bundle.shell("readlink /proc/self/ns/net; ls /sys/class/net; touch /sys/x")
        assert result.stdout.split()[0] == home
        assert "Read-only" in result.stderr

    isolated(body)
