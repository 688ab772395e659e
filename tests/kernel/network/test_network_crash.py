"""The daemon killed between any two steps of an attach: nothing leaks, every address comes back."""

import os
import signal
from pathlib import Path

import netns_kit as kit
import pytest

from cais.linux.netlink.route import RouteSocket
from cais.network.bridge import NetworkOptions
from cais.network.manager import NetworkManager
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ID = "a" * 64


def manager(root: Path) -> NetworkManager:
    found = NetworkManager(
        data_root=str(root / "data"),
        exec_root=str(root / "run"),
        options=NetworkOptions(bip="10.7.0.1/29"),
    )
    found.setup()
    return found


def die_at(step: int) -> None:
    """Have this process killed at its ``step``-th change through netlink, before or after it."""
    real = RouteSocket.batch
    count = 0

    def batch(self: RouteSocket, requests: object) -> None:
        nonlocal count
        count += 1
        if count * 2 - 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, requests)  # type: ignore[arg-type]
        if count * 2 == step:
            os.kill(os.getpid(), signal.SIGKILL)

    RouteSocket.batch = batch  # type: ignore[method-assign]


def run_and_die(root: Path, step: int) -> bool:
    """Do everything from daemon start to attach in a child; return whether it died of it."""
    if (pid := os.fork()) == 0:
        die_at(step)
        doomed = manager(root)
        doomed.offer(kit.make_namespace(str(root / "run" / "netns" / f"n{step}")))
        doomed.attach(ID, "bridge")
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_killed_at_every_step(tmp_path: Path) -> None:
    def body() -> None:
        step = 0
        died = True
        while died:
            step += 1
            died = run_and_die(tmp_path, step)
            check_recovery(tmp_path)
        assert step == 17, "eight changes, before and after each, and one run that lives"

    isolated(body, timeout_s=120)


def check_recovery(root: Path) -> None:
    after = manager(root)
    after.reconcile({})
    wait_until(lambda: own_interfaces() == {"docker0"}, f"only the bridge: {own_interfaces()}")
    assert os.listdir(root / "run" / "netns") == []
    for number in range(5):
        after.offer(kit.make_namespace(str(root / "run" / "netns" / f"r{number}")))
        after.attach(f"{number:064x}", "bridge")
    after.reconcile({})
    wait_until(lambda: own_interfaces() == {"docker0"}, "released interfaces are gone")
    after.teardown(remove_bridge=True)
    assert own_interfaces() == set()


def own_interfaces() -> set[str]:
    with RouteSocket() as netlink:
        return {link.name for link in netlink.links() if link.kind in {"bridge", "veth"}}
