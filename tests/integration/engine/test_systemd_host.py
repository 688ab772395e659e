"""caisd on a host with systemd and AppArmor: the driver it is told, the profile it gives."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from host_daemon import Host, running

from cais.linux import apparmor
from cais.linux.cgroups import detect
from cais.linux.cgroups.systemd_manager import is_running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not is_running() or detect().version != 2 or not apparmor.is_usable(),
    reason="needs systemd, cgroup v2 alone and AppArmor",
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    by_systemd = ("--exec-opt", "native.cgroupdriver=systemd")
    with running(Host(tmp_path, *by_systemd, "--cgroup-parent", "cais-test.slice")) as host:
        yield host


def shown(unit: str, name: str) -> str:
    return subprocess.check_output(["systemctl", "show", "-P", name, unit], text=True).strip()


@pytest.mark.timeout(600)
def test_a_container_is_a_scope_under_the_profile(host: Host) -> None:
    facts = json.loads(host("info", "--format", "{{json .}}"))
    assert facts["CgroupDriver"] == "systemd"
    assert "name=apparmor" in facts["SecurityOptions"]

    host("run", "-d", "--name", "box", "--network", "none", "-m", "64m", "busybox", "sleep", "600")
    document = json.loads(host("inspect", "box"))[0]
    scope = f"cais-{document['Id']}.scope"
    assert (shown(scope, "ActiveState"), shown(scope, "Slice")) == ("active", "cais-test.slice")
    assert shown(scope, "MemoryMax") == str(64 << 20)
    assert document["AppArmorProfile"] == apparmor.DEFAULT_PROFILE
    label = "/proc/self/attr/apparmor/current"
    assert host("exec", "box", "cat", label) == "docker-default (enforce)"
    assert host("exec", "--privileged", "box", "cat", label) == "docker-default (enforce)"

    host("update", "--memory", "32m", "--memory-swap", "32m", "box")
    assert shown(scope, "MemoryMax") == str(32 << 20)
    assert scope in Path(f"/proc/{document['State']['Pid']}/cgroup").read_text()
    host("rm", "-f", "box")
    assert shown(scope, "ActiveState") == "inactive"
    assert not os.path.exists(f"/sys/fs/cgroup/cais.slice/cais-test.slice/{scope}")

    said = host("create", "--cgroup-parent", "/a", "busybox", "true", code=1)
    assert 'should be a valid slice named as "xxx.slice"' in said
    privileged = host("run", "--rm", "--network", "none", "--privileged", "busybox", "cat", label)
    assert privileged == "unconfined"
