"""Keeping ready-made network namespaces in stock, so that starts do not wait for them."""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

from cais.errors import CaisError
from cais.network.endpoint import ReadyNamespace

if TYPE_CHECKING:
    import asyncio

    from cais.engine.core import Core

log = logging.getLogger(__name__)

_PAUSE_S = 0.1
"""What the stock is filled up for is a start: it shall not wait behind that in the shim."""


class NamespaceStock:
    """Has the shim make namespaces and offers them to the network room."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._filling: asyncio.Task[None] | None = None

    def refill(self) -> None:
        """Fill the stock in the background, soon; nothing if that goes on already."""
        if self._filling is None or self._filling.done():
            self._filling = self._core.background.spawn(self._fill(), "namespaces")

    async def offer_one(self) -> None:
        """Make one namespace and offer it."""
        path = self._core.paths.namespaces / secrets.token_hex(6)
        netns_fd, netlink_fd = await self._core.shim.client.create_netns(path)
        try:
            await self._core.threads.run_network(
                self._core.network.offer, ReadyNamespace(str(path), netns_fd, netlink_fd)
            )
        except RuntimeError:  # the pool is shut down: the descriptors are still ours
            os.close(netns_fd)
            os.close(netlink_fd)
            raise

    async def _fill(self) -> None:
        await self._core.clock.sleep(_PAUSE_S)
        try:
            while await self._core.threads.run_network(self._core.network.shortage) > 0:
                await self.offer_one()
        except CaisError as exc:
            log.warning("no ready network namespaces: %s", exc)
