"""The network manager: predefined networks, attachments of containers, the ready namespaces.

Which addresses are in use is written nowhere but in the kernel: the host end of every container's
veth pair carries the container's id and address as its alias (``network.alias``). An address is
therefore taken exactly as long as its interface exists, a crash between any two steps leaves
nothing to repair but interfaces, and after a restart the table is read back with one dump.

Release unpins the namespace and returns; the kernel takes the interfaces away a few milliseconds
later, many at once, where deleting each would hold its lock for 20 ms. Their addresses are given
again only when the interface is seen to be gone.

Synchronous; the engine calls it from one worker thread. Every method Blocks.
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cais.errors import ConflictError, InvalidArgumentError
from cais.linux.netlink.route import RouteSocket
from cais.linux.nftables_changes import NftablesChanges
from cais.network.alias import owner_of
from cais.network.bridge import NetworkOptions, check_options
from cais.network.bridge_network import BridgeNetwork
from cais.network.documents import PredefinedNetwork, network_document
from cais.network.endpoint import Attachment, Endpoint, EndpointId, ReadyNamespace, SandboxId
from cais.network.errors import NetworkNotFoundError, NetworkUnavailableError
from cais.network.mode import canonical_mode, joined_container, parse_mac
from cais.network.predefined import load_predefined
from cais.network.sandbox import SandboxPool, orphaned_pins, unpin

POOL_SIZE = 4
_HEX = frozenset("0123456789abcdef")


class NetworkManager:
    """Owns the default bridge and the attachments; see the module for where state lives."""

    def __init__(
        self,
        *,
        data_root: str,
        exec_root: str,
        options: NetworkOptions | None = None,
        pool_size: int = POOL_SIZE,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Check the options; touch nothing.

        Args:
            warn: gets one line for each thing that works less well than it should.

        Raises:
            InvalidArgumentError: the options contradict each other.

        """
        self._options = options or NetworkOptions()
        check_options(self._options)
        self._data_root = data_root
        self._netns_directory = Path(exec_root) / "netns"
        self._sandboxes = SandboxPool(pool_size)
        self._attachments: dict[str, Attachment] = {}
        self._networks: dict[str, PredefinedNetwork] = {}
        self._bridge: BridgeNetwork | None = None
        self._exec_root = exec_root
        self._warn = warn

    def setup(self) -> None:
        """Make the default bridge, forwarding and masquerade what they should be. Idempotent.

        A host without libnftables or without permission to forward gets a warning: its
        containers reach each other and the host, and nothing beyond.

        Raises:
            NetworkUnavailableError: no bridge can be had.

        """
        self._netns_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._networks = load_predefined(self._data_root)
        if self._options.bridge == "none":
            del self._networks["bridge"]
            return
        if self._bridge is None:
            self._bridge = BridgeNetwork(
                RouteSocket(),
                self._networks["bridge"].id,
                self._options,
                owner=owner_of(self._data_root),
                marker=Path(self._exec_root) / "network" / "forwarding-was-off",
                warn=self._warn,
            )
        self._bridge.setup()

    def restore(self) -> None:
        """Put back what another hand took from our bridge or our packet filter table.

        Raises:
            NetworkUnavailableError, OSError: the kernel refuses.

        """
        if self._bridge is not None:
            self._bridge.restore()

    def subscribe(self) -> NftablesChanges:
        """Return what tells of changes of the packet filter, for ``restore``; the caller closes it.

        Raises:
            OSError: not to be had on this host.

        """
        return NftablesChanges()

    def reconcile(self, live: Mapping[str, Attachment]) -> None:
        """After a restart: adopt the attachments in ``live``, remove every other of ours."""
        self._attachments = dict(live)
        known = {attachment.netns_path or "" for attachment in live.values()}
        known |= {attachment.userns_path or "" for attachment in live.values()}
        for pin in orphaned_pins(self._netns_directory, known | self._sandboxes.paths()):
            self._unpin(pin)
        if self._bridge is not None:
            endpoints = {name: each.endpoint for name, each in live.items() if each.endpoint}
            self._bridge.reconcile(endpoints)

    def teardown(self, *, remove_bridge: bool = False) -> None:
        """Drop the ready namespaces and close what is open; attached containers keep theirs.

        Args:
            remove_bridge: also remove our bridge and our packet filter table, for a host that
                the engine leaves for good.

        """
        self._sandboxes.clear()
        if self._bridge is not None:
            self._bridge.close(remove=remove_bridge)
            self._bridge = None

    def list(self, *, names: Callable[[str], str] = str) -> list[dict[str, Any]]:
        """Return the networks with their containers, as ``inspect`` does each."""
        return [self._document(network, names) for network in self._networks.values()]

    def inspect(self, reference: str, *, names: Callable[[str], str] = str) -> dict[str, Any]:
        """Return one network (by name, id or unambiguous id prefix), with its containers.

        Args:
            names: gives the name of a container by id.

        Raises:
            NetworkNotFoundError: ``network x not found``.
            InvalidArgumentError: several ids begin so.

        """
        return self._document(self._find(reference), names)

    def host_gateway(self) -> str:
        """Return the address ``host-gateway`` stands for: the default bridge's; may be empty."""
        return self._bridge.gateway if self._bridge else ""

    def shortage(self) -> int:
        """Return how many namespaces should be offered to fill the pool."""
        return self._sandboxes.shortage()

    def offer(self, namespace: ReadyNamespace) -> None:
        """Take over a fresh namespace for a later ``attach``; brings its ``lo`` up.

        Raises:
            NetworkUnavailableError: it does not; the namespace is discarded.

        """
        self._sandboxes.offer(namespace)

    def attach(
        self,
        container_id: str,
        mode: str,
        *,
        mac: str | None = None,
        address: str | None = None,
        joined: Attachment | None = None,
        users: str = "",
    ) -> Attachment:
        """Give a container its network.

        After a failure nothing is left: no interface, no address, no namespace. What an earlier
        attachment of the same container left is released first.

        Args:
            mode: HostConfig.NetworkMode: ``default``, ``bridge``, ``host``, ``none``,
                ``container:<id>``.
            mac: None or empty: derived from the address.
            joined: for ``container:<id>``: that container's own attachment.
            users: describes the container's user namespace, as the ready one must have it.

        Raises:
            NoReadyNamespaceError: offer one and call again.
            NetworkNotFoundError: no such network.
            NetworkFullError: no free address, or the bridge has its 1023 ports.
            ConflictError: the container to join does not run.
            InvalidArgumentError: a malformed mac, an address on the default bridge.
            NetworkUnavailableError: the kernel refuses; the message says which step.

        """
        mode = canonical_mode(mode)
        mac = parse_mac(mac) if mac else None
        if address:
            raise InvalidArgumentError(
                "user specified IP address is supported on user defined networks only"
            )
        self.release(container_id)
        attachment = self._attach(container_id, mode, mac, joined, users)
        self._attachments[container_id] = attachment
        return attachment

    def release(self, container_id: str) -> None:
        """Take a container's network away: interface, address and namespace. Idempotent."""
        attachment = self._attachments.pop(container_id, None)
        if attachment is None:
            return
        if self._bridge is not None:
            self._bridge.release(container_id)
        if attachment.netns_path and attachment.endpoint:
            self._unpin(attachment.netns_path)
            if attachment.userns_path:
                self._unpin(attachment.userns_path)

    def _unpin(self, path: str) -> None:
        try:
            unpin(path)
        except NetworkUnavailableError as exc:
            self._warn(str(exc))

    def _attach(
        self,
        container_id: str,
        mode: str,
        mac: str | None,
        joined: Attachment | None,
        users: str,
    ) -> Attachment:
        if (target := joined_container(mode)) is not None:
            if joined is None:
                raise ConflictError(f"cannot join network of a non running container: {target}")
            return Attachment(
                mode, joined.netns_path, SandboxId(""), userns_path=joined.userns_path
            )
        if mode not in self._networks and mode != "bridge":
            raise NetworkNotFoundError(mode)
        sandbox_id = SandboxId(secrets.token_hex(32))
        if mode == "host":
            return Attachment(mode, None, sandbox_id, self._place_on(mode))
        sandbox = self._sandboxes.take(users)
        try:
            if mode == "none" or self._bridge is None:
                endpoint, sysctls = self._place_on("none"), dict[str, str]()
            else:
                endpoint, sysctls = self._bridge.connect(container_id, sandbox, mac)
        except BaseException:
            sandbox.discard()
            raise
        sandbox.keep()
        return Attachment(
            mode, sandbox.path, sandbox_id, endpoint, sysctls, userns_path=sandbox.userns_path
        )

    def _place_on(self, name: str) -> Endpoint:
        return Endpoint(self._networks[name].id, name, EndpointId(secrets.token_hex(32)))

    def _find(self, reference: str) -> PredefinedNetwork:
        for network in self._networks.values():
            if reference in {network.name, network.id}:
                return network
        found = [net for net in self._networks.values() if _is_prefix(reference, net.id)]
        if len(found) > 1:
            raise InvalidArgumentError(
                f"network {reference} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NetworkNotFoundError(reference)
        return found[0]

    def _document(self, network: PredefinedNetwork, names: Callable[[str], str]) -> dict[str, Any]:
        endpoints = {name: a.endpoint for name, a in self._attachments.items() if a.endpoint}
        bridge = self._bridge.bridge if self._bridge else None
        return network_document(network, bridge, self._options.mtu, endpoints, names)


def _is_prefix(reference: str, network_id: str) -> bool:
    return bool(reference) and _HEX.issuperset(reference) and network_id.startswith(reference)
