"""A31 (CVE-2020-8557): what a container may write to is bounded, and none of it the host's disk."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from docker_bundle import give_user_namespace

from cais.errors import InvalidArgumentError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("hosts", "hostname", "resolv.conf")
FILL = (
    "dd if=/dev/zero bs=64k count=1300 of={} oflag=append conv=notrunc 2>/tmp/why;"
    "grep -o 'No space' /tmp/why; wc -c <{}"
)


def with_files(path: Path, body: Callable[[Bundle], None], **linux: object) -> None:
    """Give the bundle the engine's three files, as the engine does."""

    def isolated_body() -> None:
        bundle = Bundle(path)
        (bundle.rootfs / "tmp").mkdir()
        for name in NAMES:
            (path / name).write_text(f"{name} of the engine\n")
            mount = {"destination": f"/etc/{name}", "type": "bind", "source": str(path / name)}
            bundle.config["mounts"].append({**mount, "options": ["rbind", "rprivate"]})
        bundle.extras["files"] = [f"/etc/{name}" for name in NAMES]
        bundle.linux.update(linux)
        body(bundle)
        for name in NAMES:
            assert (path / name).read_text() == f"{name} of the engine\n"

    isolated(isolated_body)


def test_cve_2020_8557_the_engine_s_files_fill_up(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        for name in NAMES:
            result = bundle.shell(FILL.replace("{}", f"/etc/{name}"))
            reason, size = result.stdout.split("\n")[:2]
            assert reason == "No space"
            assert 900_000 < int(size) <= 1 << 20

    with_files(tmp_path, body)


@pytest.mark.parametrize("place", ["/dev/shm", "/dev"])
def test_cve_2020_8557_file_systems_in_memory_fill_up(tmp_path: Path, place: str) -> None:
    def body(bundle: Bundle) -> None:
        result = bundle.shell(FILL.replace("{}", f"{place}/big"))
        reason, size = result.stdout.split("\n")[:2]
        assert reason == "No space"
        assert int(size) <= 64 << 20

    with_files(tmp_path, body)


def test_what_the_files_are(tmp_path: Path) -> None:
    """Content, mode and owner of the original; writable, replaced at the next start."""

    def body(bundle: Bundle) -> None:
        (tmp_path / "hosts").chmod(0o640)
        script = "stat -c '%a %u %g %s' /etc/hosts; echo 1.2.3.4 me >>/etc/hosts; cat /etc/hosts"
        for _ in range(2):
            lines = bundle.shell(script).stdout.splitlines()
            assert lines == ["640 0 0 20", "hosts of the engine", "1.2.3.4 me"]
        bundle.config["mounts"][-3]["options"].append("ro")
        assert "Read-only file system" in bundle.shell("echo x >/etc/hosts").stderr

    with_files(tmp_path, body)


def test_an_exec_sees_the_same_file(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        with Capture() as capture:
            init = bundle.start("sh", "-c", "echo mine >/etc/hosts; sleep 60", stdio=capture.stdio)
        while bundle.execute(init, "cat", "/etc/hosts").stdout != "mine\n":
            os.sched_yield()
        signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
        end(init)
        bundle.destroy()

    with_files(tmp_path, body)


def test_root_of_a_user_namespace_owns_its_copies(tmp_path: Path) -> None:
    def body(bundle: Bundle) -> None:
        give_user_namespace(bundle)
        tmp_path.chmod(0o700)
        script = "stat -c '%u %g' /etc/hosts; echo x >/etc/hosts && cat /etc/hosts"
        assert bundle.shell(script).stdout.splitlines() == ["0 0", "x"]

    with_files(tmp_path, body)


@pytest.mark.parametrize("files", ["/etc/hosts", ["/etc/shadow"], [1], {"/etc/hosts": 1}])
def test_places_where_nothing_is_bound(tmp_path: Path, files: object) -> None:
    def body(bundle: Bundle) -> None:
        bundle.extras["files"] = files
        with pytest.raises(InvalidArgumentError, match="files"):
            bundle.run("true")

    with_files(tmp_path, body)


@pytest.mark.parametrize("kind", ["link", "fifo", "large", "missing"])
def test_an_original_that_is_no_small_file(tmp_path: Path, kind: str) -> None:
    def isolated_body() -> None:
        bundle = Bundle(tmp_path)
        original = tmp_path / "hosts"
        if kind == "link":
            original.symlink_to("/etc/passwd")
        elif kind == "fifo":
            os.mkfifo(original)
        elif kind == "large":
            original.write_bytes(bytes(2 << 20))
        mount = {"destination": "/etc/hosts", "type": "bind", "source": str(original)}
        bundle.config["mounts"].append(mount)
        bundle.extras["files"] = ["/etc/hosts"]
        with pytest.raises(InvalidArgumentError, match="hosts"):
            bundle.run("true")

    isolated(isolated_body)
