"""Kernel tests: hooks, agents and schedulers where a container is born in another's namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from probes import write_probe
from test_process_settings import scheduling_of
from test_seccomp_agent import ANSWER, FCHDIR, Agent, notifying

from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="programs of x86-64")

FIRST_ID = 100000


class Asking(Bundle):
    """A bundle that asks for everything at once; its hooks write their states to ``log``."""

    def __init__(self, directory: Path, name: str, agent: Agent) -> None:
        (directory / name).mkdir()
        super().__init__(directory / name, name)
        write_probe(self.rootfs / "probe", FCHDIR, -1)
        self.log = directory / f"{name}.log"
        outside = _hook(f"cat >> {self.log}; echo >> {self.log}")
        inside = _hook("cat > dev/shm/state")  # from the root: its path may be walled off
        self.config["hooks"] = {
            "createRuntime": [outside],
            "createContainer": [inside],
            "poststart": [outside],
        }
        flags = ["SCHED_FLAG_RESET_ON_FORK"]
        # 19, as a mapped root may not take back what the caller has been niced by.
        self.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 19, "flags": flags}
        self.linux["seccomp"] = notifying(agent, "fchdir")

    def in_user_namespace(self, path: str = "") -> None:
        """Make the root's files those of the mapped root; ``path`` joins, otherwise it is new."""
        self.linux["namespaces"].append(
            {"type": "user", "path": path} if path else {"type": "user"}
        )
        if not path:
            maps = [{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]
            self.linux.update(uidMappings=maps, gidMappings=maps)
        for each in (self.rootfs, *self.rootfs.rglob("*")):
            os.chown(each, FIRST_ID, FIRST_ID, follow_symlinks=False)

    def states(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def _hook(script: str) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}


@pytest.mark.parametrize("kind", ["pid", "user"])
def test_a_container_in_the_namespace_of_another(kind: str) -> None:
    def body() -> None:
        # A place that a mapped root may walk to, which pytest's own is not.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/mnt"], check=True)
        place = Path("/mnt")
        with Agent(place) as agent, Capture() as capture:
            first, second = (Asking(place, name, agent) for name in ("first", "second"))
            if kind == "user":
                first.in_user_namespace()
            init = first.start("sleep", "60", stdio=capture.stdio)
            path = f"/proc/{init.pid}/ns/{kind}"
            if kind == "user":
                second.in_user_namespace(path)
            else:
                kinds = second.linux["namespaces"]
                kinds[:] = [each for each in kinds if each["type"] != kind]
                kinds.append({"type": kind, "path": path})
            running = second.start("sleep", "60", stdio=capture.stdio)
            pid = running.pid
            found = scheduling_of(pid)
            assert (found.policy, found.nice, found.flags) == (3, 19, 1)
            assert second.execute(running, "/probe").code == ANSWER
            inside = json.loads(second.execute(running, "cat", "/dev/shm/state").stdout)
            assert inside["pid"] != pid
            assert kind == "pid" or inside["pid"] == 1
            for each in (running, init):
                os.kill(each.pid, signal.SIGKILL)
                end(each)
            for bundle in (second, first):
                bundle.destroy()
            told = [(each["pid"], each["state"]["status"]) for each in agent.told()]
            assert told[:2] == [(init.pid, "creating"), (pid, "creating")]
            assert told[2][1] == "running"
            assert [state["pid"] for state in second.states()] == [pid, pid]

    isolated(body, leftovers=False)
