"""Attachments made before the start they are for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.shim.attachment import Attachment
    from cais.shim.register import Key
    from cais.shim.stdio import Streams


class Waiting:
    """Those of one shim, by the process they wait for."""

    def __init__(self) -> None:
        self._clients: dict[Key, list[Attachment]] = {}

    def add(self, key: Key, client: Attachment) -> None:
        """Keep ``client`` until a start, or ``close``; drop those that went away meanwhile."""
        self._forget_closed()
        self._clients.setdefault(key, []).append(client)

    def join(self, key: Key, streams: Streams) -> None:
        """Attach those that wait for ``key``, whose start has begun."""
        for client in self._clients.pop(key, ()):
            if not client.is_closed:
                streams.attach(client)

    def close(self, key: Key) -> None:
        """End those that wait for a start that will not happen."""
        for client in self._clients.pop(key, ()):
            client.close()

    def _forget_closed(self) -> None:
        for key, clients in list(self._clients.items()):
            clients[:] = [client for client in clients if not client.is_closed]
            if not clients:
                del self._clients[key]
