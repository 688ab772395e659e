"""Keeping ready-made network namespaces in stock, so that starts do not wait for them."""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

from cais.engine.user_namespaces import Users
from cais.errors import CaisError
from cais.network.endpoint import ReadyNamespace
from cais.shim.values import NamespaceOwner

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

    async def offer_one(self, users: Users) -> None:
        """Make one namespace, whose it shall be, and offer it."""
        path = str(self._core.paths.namespaces / secrets.token_hex(6))
        userns_path = f"{path}.user" if users.key else None
        owner = NamespaceOwner(userns_path, users.maps, users.source) if userns_path else None
        netns_fd, netlink_fd = await self._core.shim.client.create_netns(path, owner)
        ready = ReadyNamespace(path, netns_fd, netlink_fd, userns_path, users.key)
        try:
            await self._core.threads.run_network(self._core.network.offer, ready)
        except RuntimeError:  # the pool is shut down: the descriptors are still ours
            os.close(netns_fd)
            os.close(netlink_fd)
            raise

    async def _fill(self) -> None:
        await self._core.clock.sleep(_PAUSE_S)
        try:
            while await self._core.threads.run_network(self._core.network.shortage) > 0:
                await self.offer_one(Users(self._core.config.identities))
        except CaisError as exc:
            log.warning("no ready network namespaces: %s", exc)
