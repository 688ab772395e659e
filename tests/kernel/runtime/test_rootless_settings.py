"""Kernel tests of hooks, agents and schedulers in the containers of an ordinary user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from probes import write_probe
from rootless_kit import OURS, RANGE, RUNTIMES, UID, Walker, walker
from test_seccomp_agent import ANSWER, FCHDIR, Agent, notifying

from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable


def with_walker(body: Callable[[Walker], None], runtime: str = OURS) -> None:
    def inner() -> None:
        with walker(runtime) as user:
            body(user)

    isolated(inner, timeout_s=90, leftovers=False)


def add_hook(user: Walker, point: str, script: str) -> None:
    entry = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}
    user.config.setdefault("hooks", {}).setdefault(point, []).append(entry)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("has_range", [False, True])
def test_hooks_are_the_user_s(runtime: str, *, has_range: bool) -> None:
    def body(user: Walker) -> None:
        if has_range:
            user.map_ids(RANGE)
        log = user.bundle / "log"
        log.touch()
        log.chmod(0o666)
        for point in ("createRuntime", "createContainer", "poststop"):
            add_hook(user, point, f"echo {point} $(id -u) >> {log}")
        add_hook(user, "startContainer", "id -u > /dev/shm/id")
        # 19, as no user may take back what the caller has been niced by.
        user.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 19}
        assert user.shell("cat /dev/shm/id") == "0\n"
        noted = ["createRuntime", str(UID), "createContainer", "0", "poststop", str(UID)]
        assert log.read_text().split() == noted

    with_walker(body, runtime)


@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("uid", [0, 5])
def test_an_agent_is_told(uid: int, *, no_new_privileges: bool) -> None:
    def body(user: Walker) -> None:
        user.map_ids(RANGE)
        write_probe(user.bundle / "rootfs/probe", FCHDIR, -1)
        user.process["user"] = {"uid": uid, "gid": uid}
        user.process["noNewPrivileges"] = no_new_privileges
        with Agent(user.directory) as agent:
            agent.path.chmod(0o666)
            user.linux["seccomp"] = notifying(agent, "fchdir")
            user.shell("/probe", code=ANSWER)
            assert [told["state"]["id"] for told in agent.told()] == [user.id]

    with_walker(body)
