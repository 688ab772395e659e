"""A4, A5, A7: links of an image or a volume where devices, masks and the console go."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from host_sentinel import attack

from cais.runtime.launch import LaunchError
from cais.testing.bundles import end, read_terminal

if TYPE_CHECKING:
    from cais.testing.bundles import Bundle


@pytest.mark.parametrize("kind", ["comm", "core_pattern", "regular", "dangling", "fifo", "block"])
def test_cve_2025_31133_the_mask_is_the_hosts_null_device(
    tmp_path: Path, sentinel: Path, kind: str
) -> None:
    def body(bundle: Bundle) -> None:
        dev = tmp_path / "dev"
        dev.mkdir()
        null = dev / "null"
        if kind in ("comm", "core_pattern"):
            null.symlink_to("/proc/1/comm" if kind == "comm" else "/proc/sys/kernel/core_pattern")
        elif kind == "regular":
            null.write_text("evil")
        elif kind == "dangling":
            null.symlink_to("/nowhere")
        elif kind == "fifo":
            os.mkfifo(null)
        else:
            os.mknod(null, stat.S_IFBLK | 0o666, os.makedev(7, 0))
        bundle.config["mounts"] = [
            m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")
        ]
        bundle.config["mounts"].append(
            {"destination": "/dev", "type": "bind", "source": str(dev), "options": ["rbind"]}
        )
        result = bundle.shell("stat -c '%t:%T' /proc/keys; echo x > /proc/keys; wc -c < /proc/keys")
        assert result.stdout.split() == ["1:3", "0"]

    attack(tmp_path, sentinel, body)


def test_cve_2025_52565_the_console_is_a_terminal_of_the_container(
    tmp_path: Path, sentinel: Path
) -> None:
    def body(bundle: Bundle) -> None:
        dev = tmp_path / "dev"
        (dev / "pts").mkdir(parents=True)
        (dev / "pts/0").symlink_to("/proc/sys/kernel/core_pattern")
        (dev / "console").symlink_to("/proc/sys/kernel/core_pattern")
        bundle.process["terminal"] = True
        for shared in (False, True):
            if shared:  # a /dev of somebody else's, links and all
                kept = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
                bundle.config["mounts"] = kept
                bundle.config["mounts"].insert(
                    0, {"destination": "/dev", "type": "bind", "source": str(dev)}
                )
                (dev / "shm").mkdir()
                (dev / "mqueue").mkdir()
            running = bundle.start("stat", "-c", "%t:%T", "/dev/console", stdio=None)
            assert running.terminal_fd is not None
            assert read_terminal(running.terminal_fd).strip() == "88:0"
            end(running)
            bundle.destroy()

    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    attack(tmp_path, sentinel, body)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@pytest.mark.parametrize("target", ["{sentinel}", "../../../../..{sentinel}", "/etc"])
def test_cve_2026_41579_dev_of_the_image_is_a_link(
    tmp_path: Path, sentinel: Path, target: str
) -> None:
    def body(bundle: Bundle) -> None:
        (bundle.rootfs / "dev").symlink_to(target.format(sentinel=sentinel))
        with pytest.raises(LaunchError, match="must not be a symbolic link"):
            bundle.run("true")

    attack(tmp_path, sentinel, body)


def test_cve_2026_47766_entries_of_dev_are_links_or_other_things(
    tmp_path: Path, sentinel: Path
) -> None:
    def body(bundle: Bundle) -> None:
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
        dev = bundle.rootfs / "dev"
        dev.mkdir()
        (dev / "pts").symlink_to(sentinel)
        (dev / "shm").symlink_to(sentinel)
        (dev / "ptmx").mkdir()
        (dev / "null").write_text("a file")
        result = bundle.shell("echo started; ls /dev/ptmx")
        assert result.stdout.startswith("started")

    attack(tmp_path, sentinel, body)
