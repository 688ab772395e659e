"""The packet filter is looked at when somebody changed it, and not all the time."""

from typing import Any

from quiet_loop import settle

from cais.engine.guard import LOOK_EVERY_S


async def test_each_change_is_answered_at_once_but_not_too_often(bench: Any) -> None:
    network, clock = bench.network, bench.clock
    await settle()
    assert network.restored == 0
    network.changes.announce()
    await settle()
    assert network.restored == 1
    for _ in range(3):
        network.changes.announce()
        await settle()
    assert network.restored == 1
    await clock.advance(LOOK_EVERY_S)
    assert network.restored == 2
    await clock.advance(60)
    assert network.restored == 2


async def test_a_failure_is_logged_and_the_guard_goes_on(bench: Any, caplog: Any) -> None:
    def refuse() -> None:
        raise OSError("not now")

    await settle()
    restore, bench.network.restore = bench.network.restore, refuse
    bench.network.changes.announce()
    await settle()
    assert "the packet filter was not restored: not now" in caplog.text
    bench.network.restore = restore
    bench.network.changes.announce()
    await bench.clock.advance(LOOK_EVERY_S)
    assert bench.network.restored == 1


async def test_a_host_that_announces_nothing_is_told_of(bench: Any, caplog: Any) -> None:
    def refuse() -> None:
        raise PermissionError("Operation not permitted")

    bench.network.subscribe = refuse
    await bench.reopen()
    await settle()
    assert "changes of the packet filter by others go unnoticed" in caplog.text
