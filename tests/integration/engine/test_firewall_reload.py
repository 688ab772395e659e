"""A reload of the host's firewall empties the packet filter under a running daemon."""

from collections.abc import Callable

from cais.testing.daemon import TestDaemon
from cais.testing.waiting import wait_until


def test_a_running_daemon_restores_what_a_reload_flushed(
    fresh_daemon: Callable[..., TestDaemon],
) -> None:
    daemon = fresh_daemon(load=False)
    before = daemon.run_inside(["nft", "list", "ruleset"]).stdout
    assert "masquerade" in before
    for _ in range(2):
        daemon.run_inside(["nft", "flush", "ruleset"])
        wait_until(lambda: daemon.run_inside(["nft", "list", "ruleset"]).stdout == before)
    assert "was changed by another hand: restoring it" in daemon.log_tail()
