"""The network manager: predefined networks, attachments of containers, the ready namespaces.

Which addresses are in use is written nowhere but in the kernel: the host end of every container's
veth pair carries the container's id and address as its alias (``network.alias``). An address is
therefore taken exactly as long as its interface exists, a crash between any two steps leaves
nothing to repair but interfaces, and after a restart the table is read back with one dump.

Synchronous; the engine calls it from one worker thread. Every method Blocks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cais.errors import UnavailableError
from cais.network.endpoint import Attachment, ReadyNamespace


class NoReadyNamespaceError(UnavailableError):
    """The pool is empty: have the shim make a namespace, ``offer`` it, and ask again."""


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What the daemon's command line says of the default bridge.

    Attributes:
        bridge: name of a bridge to use; None = our own; ``none`` = no default bridge.
        bip: address and prefix length of our own bridge, as ``172.17.0.1/16``.
        mtu: of the bridge and of every interface on it.

    """

    bridge: str | None = None
    bip: str | None = None
    mtu: int = 1500


class NetworkManager:
    """Owns the default bridge and the attachments; see the module for where state lives."""

    def __init__(
        self,
        *,
        data_root: str,
        exec_root: str,
        options: NetworkOptions | None = None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Args: warn gets one line for each thing that works less well than it should."""

    def setup(self) -> None:
        """Make the default bridge, forwarding and masquerade what they should be. Idempotent."""
        raise NotImplementedError

    def reconcile(self, live: Mapping[str, Attachment]) -> None:
        """After a restart: adopt the attachments in ``live``, remove every other of ours."""
        raise NotImplementedError

    def teardown(self, *, remove_bridge: bool = False) -> None:
        """Close what is open and drop the ready namespaces; attached containers keep theirs."""
        raise NotImplementedError

    def list(self) -> list[dict[str, Any]]:
        """Return the networks as ``GET /networks`` shows them."""
        raise NotImplementedError

    def inspect(self, reference: str) -> dict[str, Any]:
        """Return one network (by name, id or unambiguous id prefix), with its containers.

        Raises:
            NetworkNotFoundError: ``network x not found``.

        """
        raise NotImplementedError

    def shortage(self) -> int:
        """Return how many namespaces should be offered to fill the pool."""
        raise NotImplementedError

    def offer(self, namespace: ReadyNamespace) -> None:
        """Take over a fresh namespace for a later ``attach``; brings its ``lo`` up."""
        raise NotImplementedError

    def attach(
        self,
        container_id: str,
        mode: str,
        *,
        container_name: str = "",
        mac: str | None = None,
        address: str | None = None,
        joined: Attachment | None = None,
    ) -> Attachment:
        """Give a container its network.

        After a failure nothing is left: no interface, no address, no namespace.

        Args:
            mode: HostConfig.NetworkMode: ``default``, ``bridge``, ``host``, ``none``,
                ``container:<id>``.
            container_name: shown by ``inspect`` of the network.
            joined: for ``container:<id>``: that container's own attachment.

        Raises:
            NoReadyNamespaceError: offer one and call again.
            NetworkNotFoundError: no such network.
            NetworkFullError: no free address, or the bridge has its 1023 ports.
            InvalidArgumentError: a malformed mac, an address on the default bridge.

        """
        raise NotImplementedError

    def release(self, container_id: str) -> None:
        """Take a container's network away: interface, address and namespace. Idempotent."""
        raise NotImplementedError
