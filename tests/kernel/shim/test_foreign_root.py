"""The root another runtime is given: mounted for its command alone, users looked up inside."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cais.linux.namespaces import CLONE_NEWNS
from cais.runtime.launch import LaunchError
from cais.shim.foreign_child import Bundle
from cais.shim.foreign_command import has_ended, spawn
from cais.shim.foreign_desk import Desk
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nsailor:x:700:701:sailor:/sea:/bin/sh\n"


def make_bundle(root: Path, user: str) -> Path:
    """Make a bundle on an overlay of one layer, whose passwd knows a sailor."""
    bundle, lower = root / "bundle", root / "lower"
    for directory in (bundle, lower / "etc", root / "upper", root / "work"):
        directory.mkdir(parents=True)
    (lower / "etc/passwd").write_text(PASSWD)
    (lower / "etc/group").write_text("crew:x:702:sailor\n")
    process: dict[str, Any] = {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {**process, "env": ["A=b"]},
    }
    options = [f"{name}dir={root / name}" for name in ("lower", "upper", "work")]
    layer = {"type": "overlay", "source": "overlay", "target": "", "options": options}
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "cais.json").write_text(json.dumps({"rootfs": [layer], "user": user}))
    return bundle


def run_command(bundle: Path, look: Callable[[int], None] = lambda _pid: None) -> None:
    """Run ``cat`` as the runtime's command, ``look`` at it while it waits, and finish it."""
    gate = bundle / "gate"
    os.mkfifo(gate)
    with Desk(str(bundle / "desk")) as desk:
        complete = Bundle(str(bundle)).complete
        command = spawn(
            "/bin/cat", [str(gate)], desk, lambda _: None, complete=complete, flags=CLONE_NEWNS
        )
        program = Path(f"/proc/{command.pid}/comm")
        wait_until(lambda: program.read_text() == "cat\n" or has_ended(command.fileno()))
        if not has_ended(command.fileno()):
            look(command.pid)
            gate.write_bytes(b"")
        os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
        command.finish()


def process_of(bundle: Path) -> dict[str, Any]:
    process: dict[str, Any] = json.loads((bundle / "config.json").read_text())["process"]
    return process


def test_a_shared_mount_never_shows_it_and_others_mounts_still_come_in(tmp_path: Path) -> None:
    def body() -> None:
        root, outside = tmp_path / "run", tmp_path / "outside"
        for place in (root, outside):
            place.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
            subprocess.run(["mount", "--make-shared", place], check=True)
        (root / "late").mkdir()
        (outside / "late").mkdir()
        bundle = make_bundle(root, "sailor")

        looked: list[int] = []

        def look(pid: int) -> None:
            looked.append(pid)
            theirs = Path(f"/proc/{pid}/mountinfo")
            assert f"{bundle}/rootfs" in theirs.read_text()
            assert f"{bundle}/rootfs" not in Path("/proc/self/mountinfo").read_text()
            for place in (root, outside):
                subprocess.run(["mount", "-t", "tmpfs", "late", place / "late"], check=True)
                assert f"{place}/late" in theirs.read_text()
            (line,) = (line for line in theirs.read_text().splitlines() if f" {outside} " in line)
            assert " shared:" in line  # what a bind with rshared needs

        run_command(bundle, look)
        assert looked
        for place in (root, outside):
            subprocess.run(["umount", "-R", place], check=True)

    isolated(body)


def test_users_become_numbers_from_the_images_files(tmp_path: Path) -> None:
    def body() -> None:
        bundle = make_bundle(tmp_path, "sailor:crew")
        run_command(bundle)
        process = process_of(bundle)
        assert process["user"] == {"uid": 700, "gid": 702, "additionalGids": [702]}
        assert process["env"] == ["A=b", "HOME=/sea"]

    isolated(body)


def test_a_link_of_the_image_leads_to_no_file_of_the_host(tmp_path: Path) -> None:
    def body() -> None:
        bundle = make_bundle(tmp_path, "spy")
        (tmp_path / "hosts-passwd").write_text("spy:x:900:900:spy:/:/bin/sh\n")
        (tmp_path / "lower/etc/passwd").unlink()
        (tmp_path / "lower/etc/passwd").symlink_to(tmp_path / "hosts-passwd")
        with pytest.raises(LaunchError, match="unable to find user spy") as failed:
            run_command(bundle)
        assert failed.value.kind == "user"

    isolated(body)


def test_a_pipe_in_place_of_a_file_stalls_nobody(tmp_path: Path) -> None:
    def body() -> None:
        bundle = make_bundle(tmp_path, "sailor")
        (tmp_path / "lower/etc/passwd").unlink()
        os.mkfifo(tmp_path / "lower/etc/passwd")
        with pytest.raises(LaunchError) as failed:
            run_command(bundle)
        assert failed.value.kind == "user"

    isolated(body)
