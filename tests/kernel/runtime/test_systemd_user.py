"""``cais-runtime --systemd-cgroup`` of an ordinary user: scopes of the user's own systemd.

That one runs here where the host's first process is none, in a control group that is the user's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rootless_kit import UID, Walker, delegated_group, with_walker

from cais.linux.cgroups.systemd_manager import is_running
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = Path("/lib/systemd/systemd")
INITIAL_PID_NAMESPACE = 0xEFFFFFFC
DATAGRAMS = (socket.AF_UNIX, socket.SOCK_DGRAM)
NESTED = ("unshare", "--user", "--map-root-user", "--mount")

pytestmark = pytest.mark.skipif(
    os.stat("/proc/self/ns/pid").st_ino != INITIAL_PID_NAMESPACE,
    reason="needs the host's pid namespace",
)


@contextmanager
def user_manager(user: Walker) -> Iterator[str]:
    """Run the user's systemd, which has nothing to do; return its control group."""
    units = user.directory / "units"
    units.mkdir()
    (units / "some.target").write_text("[Unit]\nDescription=all there is\n")
    variables = (f"SYSTEMD_UNIT_PATH={units}", f"NOTIFY_SOCKET={units}/told", "HOME=/nowhere")
    with booted_by_systemd(), delegated_group() as group, socket.socket(*DATAGRAMS) as told:
        told.bind(f"{units}/told")
        os.chown(f"{units}/told", UID, UID)
        told.settimeout(PATIENCE_S)
        there = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        command = user.as_user(*variables, str(SYSTEMD), "--user", "--unit=some.target")
        null = subprocess.DEVNULL
        manager = subprocess.Popen([*there, *command], stdin=null, stderr=null)
        try:
            while "READY=1" not in told.recv(4096).decode().splitlines():
                pass
            yield f"/{group.name}"
        finally:
            manager.kill()
            manager.wait()
            own = group / "own"
            made = [place for place in group.rglob("*") if place.is_dir() and place != own]
            for place in sorted(made, reverse=True):
                place.rmdir()


@contextmanager
def booted_by_systemd() -> Iterator[None]:
    """Have this host say so."""
    if is_running():
        yield
        return
    place = Path("/run/systemd")
    was_there = place.exists()
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
    (place / "system").mkdir()
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        if not was_there:
            place.rmdir()


@pytest.mark.parametrize("before", [(), NESTED], ids=["ordinary", "nested"])
def test_a_container_has_a_scope_of_the_user_s(before: tuple[str, ...]) -> None:
    """Also inside the user namespace of an engine, such as podman's: the user is root there."""

    def body(user: Walker) -> None:
        if before:
            user.linux["namespaces"].remove({"type": "user"})
            for name in ("uidMappings", "gidMappings"):
                del user.linux[name]
        with user_manager(user) as group:
            user.create("--systemd-cgroup", before=before)
            state = json.loads(user("state", user.id, before=before))
            shown = Path(f"/proc/{state['pid']}/cgroup").read_text()
            scope = f"{group}/user.slice/cais-{user.id}.scope"
            assert f"0::{scope}\n" in shown
            assert json.loads(user("ps", "--format=json", user.id, before=before))
            user("delete", "--force", user.id, before=before)
            os.waitpid(state["pid"], 0)
            assert not Path(f"/sys/fs/cgroup{scope}").exists()

    with_walker(body)
