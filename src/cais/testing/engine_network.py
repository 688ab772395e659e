"""The network room in memory: for tests of what the engine decides."""

from __future__ import annotations

import itertools
import socket
from typing import TYPE_CHECKING, Any

from cais.network.endpoint import (
    Attachment,
    Endpoint,
    EndpointId,
    NetworkId,
    ReadyNamespace,
    SandboxId,
)
from cais.network.errors import NetworkNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NETWORK_ID = NetworkId("a" * 64)


class FakeChanges:
    """Announcements of changes of the packet filter, by the test: ``announce``."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()

    def announce(self) -> None:
        """Say that something was changed."""
        self._theirs.send(b"x")

    def fileno(self) -> int:
        """Return what turns readable."""
        return self._ours.fileno()

    def forget(self) -> None:
        """Drop the announcements."""
        self._ours.recv(4096)

    def close(self) -> None:
        """Close both ends; idempotent."""
        self._ours.close()
        self._theirs.close()


class FakeNetwork:
    """Addresses without interfaces."""

    def __init__(self) -> None:
        self.attached: dict[str, Attachment] = {}
        self.restored = 0
        self.changes: FakeChanges | None = None
        self._hosts = itertools.count(2)

    def setup(self) -> None:
        """Nothing to set up."""

    def teardown(self) -> None:
        """Nothing to take down."""

    def subscribe(self) -> FakeChanges:
        """Return announcements that the test makes."""
        self.changes = FakeChanges()
        return self.changes

    def restore(self) -> None:
        """Count."""
        self.restored += 1

    def reconcile(self, live: Mapping[str, Attachment]) -> None:
        """Keep what lives."""
        self.attached = dict(live)

    def shortage(self) -> int:
        """Return 0: there is always one."""
        return 0

    def offer(self, namespace: ReadyNamespace) -> None:
        """Drop it."""
        del namespace

    def host_gateway(self) -> str:
        """Return the bridge's address."""
        return "172.17.0.1"

    def attach(self, container_id: str, mode: str, **_rest: Any) -> Attachment:  # noqa: ANN401
        """Give the next address on the bridge, none elsewhere."""
        if mode not in ("bridge", "none", "host") and not mode.startswith("container:"):
            raise NetworkNotFoundError(mode)
        endpoint = None
        if not mode.startswith("container:"):
            endpoint = Endpoint(
                _NETWORK_ID,
                mode,
                EndpointId("b" * 64),
                address=f"172.17.0.{next(self._hosts)}" if mode == "bridge" else "",
                prefix_len=16,
            )
        path = None if mode == "host" else f"/netns/{container_id[:12]}"
        attachment = Attachment(mode, path, SandboxId("c" * 64), endpoint)
        self.attached[container_id] = attachment
        return attachment

    def release(self, container_id: str) -> None:
        """Forget it."""
        self.attached.pop(container_id, None)

    def list(self, **_rest: Any) -> Iterable[dict[str, Any]]:  # noqa: ANN401
        """Return the bridge."""
        return [
            {
                "Name": "bridge",
                "Id": _NETWORK_ID,
                "Driver": "bridge",
                "Scope": "local",
                "Labels": {},
                "Containers": {},
            }
        ]
