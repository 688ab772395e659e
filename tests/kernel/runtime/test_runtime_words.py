"""Kernel tests of what a user may not execute or enter, and of the words for it, beside runc.

Docker's command line makes 126 or 127 of a start that is refused, by these words; a program that
was started and ends with 255 is something else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from peers import BOTH, Peer

from cais.linux import credentials
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

UID, GID = 1000, 1001
_ROOT_S_OWN = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH")
FILTERS: list[dict[str, Any]] = [{}, {"defaultAction": "SCMP_ACT_ALLOW"}]
_LOOK_UP = ("stat", "newfstatat", "access", "faccessat", "faccessat2", "chdir", "fchdir", "openat2")


def with_peer(tmp_path: Path, name: str, body: Callable[[Peer], None]) -> None:
    def run() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        bundle.process["user"] = {"uid": UID, "gid": GID}
        bundle.process["capabilities"] = {"bounding": ["CAP_KILL"]}
        body(Peer(name, bundle, tmp_path))

    isolated(run)


def add_program(
    bundle: Bundle, path: str, mode: int, text: str = "#!/bin/sh\necho run $0\n"
) -> None:
    file = bundle.rootfs / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("name", BOTH)
def test_a_program_that_only_root_may_execute(
    tmp_path: Path, name: str, *, no_new_privileges: bool, filters: dict[str, Any]
) -> None:
    def body(peer: Peer) -> None:
        peer.bundle.process["noNewPrivileges"] = no_new_privileges
        if filters:
            peer.bundle.linux["seccomp"] = filters
        add_program(peer.bundle, "root-only", 0o700)
        refused = peer.run("/root-only", ok=False)
        assert refused.returncode == 1
        assert "/root-only" in refused.stderr
        assert "permission denied" in refused.stderr
        peer.bundle.process["user"] = {"uid": 0, "gid": 0}
        assert peer.run("/root-only").stdout == "run /root-only\n"

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_a_program_below_a_directory_that_only_root_may_enter(tmp_path: Path, name: str) -> None:
    def body(peer: Peer) -> None:
        add_program(peer.bundle, "hidden/run", 0o755)
        (peer.bundle.rootfs / "hidden").chmod(0o700)
        words = 'exec: "/hidden/run": stat /hidden/run: permission denied'
        assert words in peer.run("/hidden/run", ok=False).stderr.replace("\\", "")

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_a_capability_of_the_program_counts(tmp_path: Path, name: str) -> None:
    def body(peer: Peer) -> None:
        add_program(peer.bundle, "theirs", 0o700)
        os.chown(peer.bundle.rootfs / "theirs", UID, GID)
        peer.bundle.process["user"] = {"uid": 0, "gid": 0}
        sets = ("bounding", "permitted", "effective")
        peer.bundle.process["capabilities"] = {name: ["CAP_DAC_OVERRIDE"] for name in sets}
        assert peer.run("/theirs").returncode == 0
        peer.bundle.process["capabilities"] = {}
        refused = peer.run("/theirs", ok=False)
        assert (refused.returncode, "permission denied" in refused.stderr) == (1, True)

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_a_directory_of_the_search_path_that_only_root_may_read(tmp_path: Path, name: str) -> None:
    def body(peer: Peer) -> None:
        add_program(peer.bundle, "first/tool", 0o755)
        (peer.bundle.rootfs / "first").chmod(0o700)
        add_program(peer.bundle, "second/tool", 0o755)
        peer.bundle.process["env"] = ["PATH=/first:/second"]
        assert peer.run("tool").stdout == "run /second/tool\n"

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("name", BOTH)
def test_a_working_directory_that_root_may_not_enter(
    tmp_path: Path, name: str, filters: dict[str, Any]
) -> None:
    def body(peer: Peer) -> None:
        place = working_directory_of_the_user(peer.bundle)
        if filters:
            peer.bundle.linux["seccomp"] = filters
        assert peer.run("pwd").stdout == "/place\n"
        place.chmod(0o000)
        words = 'chdir to cwd ("/place") set in config.json failed: permission denied'
        assert words in peer.run("pwd", ok=False).stderr.replace("\\", "")

    with_peer(tmp_path, name, body)


@pytest.mark.parametrize("name", BOTH)
def test_what_only_root_may_do_is_refused_to_an_exec_too(tmp_path: Path, name: str) -> None:
    def body(peer: Peer) -> None:
        working_directory_of_the_user(peer.bundle)
        add_program(peer.bundle, "root-only", 0o700)
        peer.bundle.process["args"] = ["sleep", "60"]
        peer.create()
        try:
            peer("start", peer.id)
            refused = peer("exec", "--user", f"{UID}:{GID}", peer.id, "/root-only", ok=False)
            assert refused.returncode == 255
            assert "permission denied" in refused.stderr
            assert peer("exec", "--user", f"{UID}:{GID}", peer.id, "pwd").stdout == "/place\n"
        finally:
            peer("delete", "--force", peer.id)
            os.waitpid(-1, 0)  # an orphan of ``create``, and so ours

    with_peer(tmp_path, name, body)


def test_a_filter_may_deny_what_looks_the_program_up(tmp_path: Path) -> None:
    def body(peer: Peer) -> None:
        working_directory_of_the_user(peer.bundle)
        rule = {"names": list(_LOOK_UP), "action": "SCMP_ACT_ERRNO"}
        peer.bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        assert peer.run("cat", "/proc/self/comm").stdout == "cat\n"

    with_peer(tmp_path, "cais", body)


def working_directory_of_the_user(bundle: Bundle) -> Path:
    """Let the user alone enter its working directory, as a file system over the network may."""
    credentials.drop_bounding(~credentials.mask_of(_ROOT_S_OWN)[0])
    mounts = bundle.config["mounts"]  # runc 1.1 mounts version 1's groups as this lesser root
    bundle.config["mounts"] = [entry for entry in mounts if entry["type"] != "cgroup"]
    place = bundle.rootfs / "place"
    place.mkdir()
    os.chown(place, UID, GID)
    place.chmod(0o700)
    bundle.process["cwd"] = "/place"
    return place
