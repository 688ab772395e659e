"""Many hands on few containers: only documented answers, no deadlock, nothing left (F-27)."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from cais.errors import AlreadyExistsError, ConflictError, NotFoundError, NotModifiedError
from cais.spec.container import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

DOCUMENTED = (ConflictError, NotFoundError, NotModifiedError, AlreadyExistsError)
NAMES = ("one", "two", "three")


async def test_random_operations_at_once(bench: Any) -> None:
    chance = random.Random(7)
    engine = bench.engine

    async def create() -> None:
        await bench.create(
            chance.choice(NAMES),
            auto_remove=(is_removed := chance.random() < 0.3),
            restart_policy=RestartPolicy("" if is_removed else chance.choice(("always", "no"))),
        )

    async def end() -> None:
        if bench.shim.running:
            bench.shim.end(chance.choice(sorted(bench.shim.running)), chance.randrange(3))

    def some() -> str:
        return chance.choice(NAMES)

    operations: list[Callable[[], Coroutine[Any, Any, object]]] = [
        create,
        end,
        lambda: engine.lifecycle.start(some()),
        lambda: engine.lifecycle.stop(some(), timeout=0),
        lambda: engine.lifecycle.kill(some()),
        lambda: engine.lifecycle.kill(some(), "HUP"),
        lambda: engine.lifecycle.restart(some(), timeout=0),
        lambda: engine.lifecycle.pause(some()),
        lambda: engine.lifecycle.unpause(some()),
        lambda: engine.containers.remove(some(), force=chance.random() < 0.5),
        lambda: engine.containers.rename(some(), some()),
        lambda: engine.containers.inspect(some()),
    ]
    unexpected: list[BaseException] = []

    async def hand() -> None:
        for _ in range(25):
            try:
                await chance.choice(operations)()
            except DOCUMENTED:
                pass
            except Exception as exc:  # noqa: BLE001 - collected and shown
                if "same name as its current name" not in str(exc):
                    unexpected.append(exc)
            await asyncio.sleep(0)

    hands = [asyncio.create_task(hand()) for _ in range(10)]
    for _ in range(2000):
        if all(one.done() for one in hands):
            break
        await bench.clock.advance(0.5)
    assert all(one.done() for one in hands), "deadlock"
    assert unexpected == []
    await force_everything_away(bench)
    assert (bench.shim.running, bench.snapshots.active, bench.network.attached) == ({}, {}, {})
    assert list(bench.core.paths.containers.iterdir()) == []
    for name in NAMES:
        await bench.create(name)


async def force_everything_away(bench: Any) -> None:
    for container in bench.core.table:
        try:
            await bench.engine.containers.remove(container.id, force=True)
        except NotFoundError:
            continue
    await bench.clock.advance(120)
    await bench.core.background.quiesce()
