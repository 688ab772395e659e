"""Keeping the packet filter ours: a table that another hand flushed comes back at once.

A reload of the host's firewall empties everything, and with it what keeps containers apart from
the host's neighbours. The kernel announces such changes; each is answered by a look at our own
table and, where it is not as it was left, by restoring it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from typing import TYPE_CHECKING

from cais.errors import CaisError

if TYPE_CHECKING:
    from cais.engine.core import Core

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
"""At most: a host that changes its rules all the time shall not keep the daemon busy."""


async def guard_packet_filter(core: Core) -> None:
    """Restore our table whenever it was changed, until cancelled.

    Where changes are not announced (no nftables, no permission), our table is only looked at
    when a container is connected.
    """
    try:
        changes = await core.threads.run_network(core.network.subscribe)
    except OSError as exc:
        log.warning("changes of the packet filter by others go unnoticed: %s", exc)
        return
    with closing(changes):
        changed = asyncio.Event()

        def hear() -> None:
            changes.forget()
            changed.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(changes.fileno(), hear)
        try:
            while True:
                await changed.wait()
                changed.clear()
                await _restore(core)
                await core.clock.sleep(LOOK_EVERY_S)
        finally:
            loop.remove_reader(changes.fileno())


async def _restore(core: Core) -> None:
    try:
        await core.threads.run_network(core.network.restore)
    except (CaisError, OSError) as exc:
        log.error("the packet filter was not restored: %s", exc)  # noqa: TRY400 - known faults
