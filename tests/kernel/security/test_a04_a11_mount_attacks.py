"""A4 to A11, A17, A27: links and races in images and volumes cannot reach the host.

Each test has a sentinel directory on the host that attacks point at; it must not change.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.errors import InvalidArgumentError
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, end, read_terminal
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RENAME_EXCHANGE = 2


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    directory = tmp_path / "sentinel"
    directory.mkdir()
    for name in ("ptmx", "file"):
        (directory / name).write_text("mine\n")
    return directory


def photograph(directory: Path) -> list[tuple[str, int, int, bytes]]:
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), status.st_mode, status.st_mtime_ns, content))
    return found


def attack(tmp_path: Path, sentinel: Path, body: Callable[[Bundle], None]) -> None:
    def whole() -> None:
        before = photograph(sentinel), Path("/proc/self/mountinfo").read_text()
        (tmp_path / "bundle").mkdir()
        body(Bundle(tmp_path / "bundle"))
        assert (photograph(sentinel), Path("/proc/self/mountinfo").read_text()) == before

    isolated(whole, timeout_s=100)


def outcome(bundle: Bundle, *args: str) -> int | str:
    """Return the exit code, or why it did not start."""
    try:
        return bundle.run(*args).code
    except LaunchError as refused:
        return refused.kind


@contextmanager
def flipping(real: Path, link: Path) -> Iterator[None]:
    """Exchange two names as fast as possible in a process of its own (H7)."""
    libc = ctypes.CDLL(None)
    pid = os.fork()
    if pid == 0:
        one, other = os.fsencode(real), os.fsencode(link)
        while os.getppid() != 1:
            libc.renameat2(-100, one, -100, other, RENAME_EXCHANGE)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


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


def test_cve_2024_45310_and_2021_30465_mount_targets_in_a_shared_volume_that_is_changed(
    tmp_path: Path, sentinel: Path
) -> None:
    """Directories and files to mount on are made and mounted while their parent flips."""

    def body(bundle: Bundle) -> None:
        volume = tmp_path / "volume"
        (volume / "a").mkdir(parents=True)
        (volume / "link").symlink_to(sentinel)
        (tmp_path / "data").write_text("data\n")
        bundle.config["mounts"] += [
            {"destination": "/vol", "type": "bind", "source": str(volume), "options": ["rbind"]},
            {"destination": "/vol/a/b/c", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/vol/a/f", "type": "bind", "source": str(tmp_path / "data")},
        ]
        outcomes: set[int | str] = set()
        with flipping(volume / "a", volume / "link"):
            for _ in range(80):
                outcomes.add(outcome(bundle, "true"))
        assert 0 in outcomes

    attack(tmp_path, sentinel, body)


@pytest.mark.parametrize(
    ("link", "target"),
    [("a", "{sentinel}"), ("a", "/proc/self/root/.."), ("a/b", "/nowhere"), ("a", "/etc/passwd")],
)
def test_cve_2026_55686_the_working_directory_is_made_inside_only(
    tmp_path: Path, sentinel: Path, link: str, target: str
) -> None:
    def body(bundle: Bundle) -> None:
        path = bundle.rootfs / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(target.format(sentinel=sentinel))
        bundle.process["cwd"] = "/a/b"
        assert outcome(bundle, "true") in (0, "workdir")

    attack(tmp_path, sentinel, body)


@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "hostname"])
@pytest.mark.parametrize("kind", ["link", "up", "dangling", "magic", "fifo", "directory"])
def test_cve_2024_5154_files_the_engine_brings_go_over_links_inside_only(
    tmp_path: Path, sentinel: Path, name: str, kind: str
) -> None:
    def body(bundle: Bundle) -> None:
        ours = tmp_path / "ours"
        ours.write_text("ours\n")
        place = bundle.rootfs / "etc" / name
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "directory":
            place.mkdir()
        else:
            place.symlink_to(
                {
                    "link": f"{sentinel}/new",
                    "up": f"../../../../../../..{sentinel}/file",
                    "dangling": "/no/such/place",
                    "magic": "/proc/self/root/etc/other",
                }[kind]
            )
        bundle.config["mounts"].append(
            {"destination": f"/etc/{name}", "type": "bind", "source": str(ours)}
        )
        test = ("grep", "-qx", "ours", f"/etc/{name}")
        assert outcome(bundle, *test) == ("setup" if kind in ("magic", "directory") else 0)

    attack(tmp_path, sentinel, body)


def test_cve_2025_52881_sysctls_are_written_while_a_shared_volume_flips(
    tmp_path: Path, sentinel: Path
) -> None:
    def body(bundle: Bundle) -> None:
        volume = tmp_path / "volume"
        (volume / "net").mkdir(parents=True)
        (volume / "link").symlink_to("/proc/sys/kernel")
        bundle.config["mounts"].append(
            {"destination": "/vol", "type": "bind", "source": str(volume), "options": ["rbind"]}
        )
        bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
        with flipping(volume / "net", volume / "link"):
            for _ in range(20):
                assert bundle.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "1\n"

    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    attack(tmp_path, sentinel, body)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
