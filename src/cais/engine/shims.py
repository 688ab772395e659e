"""The link to the shim: found or started, and started again when it dies."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cais.errors import CaisError, UnavailableError
from cais.shim.client import ensure_shim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cais.engine.clock import Clock
    from cais.engine.paths import Paths
    from cais.engine.tasks import Background
    from cais.shim.client import ShimClient
    from cais.shim.values import ExitEvent, ShimEvent, ShimHello

log = logging.getLogger(__name__)

_RETRY_S = 1.0


class ShimLink:
    """Holds the current client; ``client`` raises while there is none."""

    def __init__(self, paths: Paths, background: Background, clock: Clock) -> None:
        self._paths = paths
        self._background = background
        self._clock = clock
        self._client: ShimClient | None = None
        self._is_closing = False
        self._early: list[ShimEvent] | None = []
        self.on_event: Callable[[ShimEvent], None] = lambda _event: None
        self.on_replaced: Callable[[ShimHello], Awaitable[None]] | None = None
        """Called after a lost shim was replaced: adopt what still runs."""

    @property
    def client(self) -> ShimClient:
        """The connected client.

        Raises:
            UnavailableError: the shim died and its successor is not there yet.

        """
        if self._client is None:
            raise UnavailableError("the shim is being restarted, try again")
        return self._client

    async def open(self) -> ShimHello:
        """Connect to the data root's shim, starting one if nobody listens.

        Events are kept back until ``release_events``.

        Raises:
            UnavailableError: it cannot be started.
            ConflictError: the data root's shim has another exec root.

        """
        client = await ensure_shim(
            self._paths.data_root, self._paths.exec_root, on_event=self._received
        )
        self._client = client
        self._background.spawn(self._watch(client), "shim-watch")
        return client.hello

    def release_events(self) -> None:
        """Deliver the events that came since ``open``, and from now on at once."""
        early, self._early = self._early, None
        for event in early or ():
            self.on_event(event)

    def acknowledge(self, event: ExitEvent) -> None:
        """Tell the shim, in the background, that an exit is recorded."""
        self._background.spawn(self._acknowledge(event.exit_seq), "shim-ack")

    def close(self) -> None:
        """Disconnect; the shim and its containers go on."""
        self._is_closing = True
        if self._client is not None:
            self._client.close()
            self._client = None

    def _received(self, event: ShimEvent) -> None:
        if self._early is None:
            self.on_event(event)
        else:
            self._early.append(event)

    async def _acknowledge(self, exit_seq: int) -> None:
        try:
            await self.client.ack([exit_seq])
        except UnavailableError:
            log.info("exit %d is not acknowledged: no shim", exit_seq)

    async def _watch(self, client: ShimClient) -> None:
        await client.wait_lost()
        if self._is_closing:
            return
        log.error("the shim (pid %d) is gone: starting another one", client.hello.pid)
        self._client = None
        self._early = []
        hello = await self._reopen()
        try:
            if self.on_replaced is not None:
                await self.on_replaced(hello)
        finally:
            self.release_events()

    async def _reopen(self) -> ShimHello:
        while True:
            try:
                return await self.open()
            except (CaisError, OSError) as exc:
                log.error("the shim cannot be started: %s", exc)  # noqa: TRY400 - repeats
                await self._clock.sleep(_RETRY_S)
