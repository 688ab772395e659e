"""Containers on the default bridge: veth pairs, addresses, and the way out.

A connection is made in an order that any crash can stop: the pair (one end already inside the
namespace), the inside configured, then in one step the alias, the bridge and up outside. Until
that step nothing reaches the container; when its namespace goes, so does the pair.
"""

import contextlib
import errno
import ipaddress
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from cais.linux.netlink import route
from cais.linux.netlink.route import Link, NetlinkError, RouteSocket
from cais.network import bridge as bridges
from cais.network.alias import VethAlias, interface_name, parse_veth_alias, veth_alias
from cais.network.bridge import Bridge, NetworkOptions
from cais.network.endpoint import Endpoint, EndpointId, NetworkId
from cais.network.errors import NetworkFullError, NetworkUnavailableError
from cais.network.firewall import BridgeRules, Firewall
from cais.network.forwarding import Forwarding
from cais.network.pool import AddressPool, mac_of
from cais.network.sandbox import Sandbox

INTERFACE = "eth0"
_SWEEP = 8  # released interfaces looked at per connection: bounds what one start pays for others
_REMEMBERED = 4096  # stopped containers that get their address again if it is still free
_IPV6 = Path("/proc/sys/net/ipv6")


class BridgeNetwork:
    """The default bridge and everything on it."""

    def __init__(
        self,
        netlink: RouteSocket,
        network_id: NetworkId,
        options: NetworkOptions,
        *,
        owner: str,
        marker: Path,
        warn: Callable[[str], None],
    ) -> None:
        """Take over ``netlink``; ``setup`` before anything else."""
        self._netlink = netlink
        self._network_id = network_id
        self._options = options
        self._owner = owner
        self._firewall = Firewall(owner)
        self._forwarding = Forwarding(marker)
        self._warn = warn
        self._bridge: Bridge | None = None
        self._pool: AddressPool | None = None
        self._connected: dict[str, tuple[int, str]] = {}  # container id: interface index, address
        self._released: dict[str, int] = {}  # address: index of the interface that still holds it
        self._previous: dict[str, str] = {}  # container id: its last address, asked for again

    @property
    def bridge(self) -> Bridge:
        """The bridge as ``setup`` left it."""
        assert self._bridge is not None, "setup comes first"
        return self._bridge

    @property
    def gateway(self) -> str:
        """The bridge's own address."""
        return self.bridge.gateway

    def setup(self) -> None:
        """Find or make the bridge, put our interfaces back on it, and open the way out."""
        ours = self._our_links()
        wanted = _remembered(self._bridge, [alias for _, alias in ours])
        self._bridge = bridges.ensure_bridge(self._netlink, self._options, self._owner, wanted)
        self._pool = AddressPool(self._bridge.subnet, [self._bridge.gateway])
        self._adopt(ours)
        self._open_the_way_out()

    def reconcile(self, live: Mapping[str, Endpoint]) -> None:
        """Remove the interfaces of containers that are not in ``live``."""
        for container_id in self._connected.keys() - live.keys():
            index, _ = self._connected[container_id]
            self.release(container_id)
            self._delete(index)
        for container_id, endpoint in live.items():
            if endpoint.address and container_id not in self._connected:
                self._warn(f"container {container_id} lost its interface {endpoint.host_interface}")

    def close(self, *, remove: bool) -> None:
        """Close what is open; ``remove`` also the table and a bridge of ours."""
        if remove and self._bridge is not None:
            with contextlib.suppress(NetworkUnavailableError):
                self._firewall.remove()
            if self._bridge.is_ours:
                self._delete(self._bridge.index)
        self._firewall.close()
        self._netlink.close()

    def connect(
        self, container_id: str, sandbox: Sandbox, mac: str | None
    ) -> tuple[Endpoint, dict[str, str]]:
        """Put a sandbox on the bridge.

        Returns:
            The endpoint, and the sysctls that keep its interface from IPv6.

        Raises:
            NetworkFullError: no free address, or no free port.
            NetworkUnavailableError: the kernel refuses; nothing is left.

        """
        try:
            self.restore()
            return self._connect(container_id, sandbox, mac)
        except NetlinkError as exc:
            raise _translate(exc, self.bridge.name) from exc

    def release(self, container_id: str) -> None:
        """Count a container as gone; its address is free when its interface is. Idempotent."""
        index, address = self._connected.pop(container_id, (0, ""))
        if index:
            self._released[address] = index
            self._previous[container_id] = address
            if len(self._previous) > _REMEMBERED:
                del self._previous[next(iter(self._previous))]

    def restore(self) -> None:
        """Put back what another hand took away since the last time; a tenth of a millisecond.

        Raises:
            NetworkUnavailableError, NetlinkError: the kernel refuses.

        """
        if not bridges.is_intact(self._netlink, self.bridge):
            changed = f"bridge {self.bridge.name}"
        elif not self._firewall.is_intact():
            changed = f"packet filter table {self._firewall.table}"
        else:
            return
        self._warn(f"{changed} was changed by another hand: restoring it")
        self.setup()

    def _connect(
        self, container_id: str, sandbox: Sandbox, mac: str | None
    ) -> tuple[Endpoint, dict[str, str]]:
        address = self._take_address(container_id)
        name = interface_name(self._owner)
        endpoint = Endpoint(
            network_id=self._network_id,
            network_name="bridge",
            endpoint_id=EndpointId(secrets.token_hex(32)),
            interface=INTERFACE,
            host_interface=name,
            address=address,
            prefix_len=self.bridge.subnet.prefixlen,
            gateway=self.bridge.gateway,
            mac=mac or mac_of(address),
        )
        index = 0
        try:
            index = self._make_pair(endpoint, sandbox)
            self._configure_inside(endpoint, sandbox)
            self._open_port(index, VethAlias(container_id, address, endpoint.prefix_len))
        except BaseException:
            self._delete(index)
            self._addresses.free(address)
            raise
        self._connected[container_id] = (index, address)
        return endpoint, _ipv6_refused()

    def _make_pair(self, endpoint: Endpoint, sandbox: Sandbox) -> int:
        name = endpoint.host_interface
        pair = route.new_veth(
            name,
            INTERFACE,
            peer_netns_fd=sandbox.netns_fd,
            peer_mac=endpoint.mac,
            mtu=self._options.mtu,
        )
        self._netlink.batch([pair])
        link = self._netlink.find_link(name)
        if link is None:
            raise NetlinkError(errno.ENODEV, f"find interface {name}, made a moment ago")
        return link.index

    def _configure_inside(self, endpoint: Endpoint, sandbox: Sandbox) -> None:
        link = sandbox.netlink.find_link(INTERFACE)
        if link is None:
            raise NetlinkError(errno.ENODEV, f"find {INTERFACE} in {sandbox.path}")
        sandbox.netlink.batch(
            [
                route.set_link(link.index, link_local=False),
                route.new_address(link.index, endpoint.address, endpoint.prefix_len),
                route.set_link(link.index, up=True),
                route.new_default_route(link.index, endpoint.gateway),
            ]
        )

    def _open_port(self, index: int, alias: VethAlias) -> None:
        text = veth_alias(self._owner, alias)
        self._netlink.batch(
            [
                route.set_link(index, link_local=False),
                route.set_link(index, up=True, master=self.bridge.index, alias=text),
            ]
        )

    @property
    def _addresses(self) -> AddressPool:
        assert self._pool is not None, "setup comes first"
        return self._pool

    def _take_address(self, container_id: str) -> str:
        """Take the address the container had before if it can be had, else the next one.

        Deleting an interface that is about to go anyway holds the kernel for 20 ms: done for a
        container that comes back at once, and when nothing else is left.
        """
        if (previous := self._previous.pop(container_id, "")) in self._released:
            self._delete(self._released[previous])
            self._sweep([previous])
        if previous and self._addresses.claim(previous):
            return previous
        self._sweep(list(self._released)[:_SWEEP])
        try:
            return self._addresses.take()
        except NetworkFullError:
            for index in self._released.values():
                self._delete(index)
            self._sweep(list(self._released))
            return self._addresses.take()

    def _sweep(self, addresses: list[str]) -> None:
        """Free those of the released addresses whose interface is gone."""
        for address in addresses:
            index = self._released.pop(address)
            if self._netlink.find_link_by_index(index) is None:
                self._addresses.free(address)
            else:
                self._released[address] = index  # behind the others: it may stay for long

    def _our_links(self) -> list[tuple[Link, VethAlias]]:
        return [
            (link, alias)
            for link in self._netlink.links()
            if (alias := parse_veth_alias(self._owner, link.alias)) is not None
        ]

    def _adopt(self, ours: list[tuple[Link, VethAlias]]) -> None:
        """Take the kernel's word for who has which address; put interfaces back on the bridge."""
        released, self._released = self._released, {}
        self._connected.clear()
        for link, alias in ours:
            self._addresses.adopt(alias.address)
            if released.get(alias.address) == link.index:
                self._released[alias.address] = link.index
            else:
                self._connected[alias.container_id] = (link.index, alias.address)
                self._restore_port(link)

    def _restore_port(self, link: Link) -> None:
        if link.master != self.bridge.index or not link.is_up:
            try:
                port = route.set_link(link.index, up=True, master=self.bridge.index)
                self._netlink.batch([port])
            except NetlinkError as exc:
                self._warn(f"interface {link.name} is not back on {self.bridge.name}: {exc}")

    def _open_the_way_out(self) -> None:
        bridge = self.bridge
        rules = BridgeRules(bridge.name, bridge.subnet, bridge.gateway)
        try:
            self._firewall.apply(rules, drop_foreign=self._forwarding.note_state())
            self._forwarding.enable()
        except (NetworkUnavailableError, OSError) as exc:
            self._warn(f"containers on {bridge.name} reach nothing beyond the host: {exc}")

    def _delete(self, index: int) -> None:
        if index:
            with contextlib.suppress(NetlinkError):  # gone already, or goes with its namespace
                self._netlink.batch([route.delete_link(index)])


def _remembered(bridge: Bridge | None, ours: list[VethAlias]) -> ipaddress.IPv4Interface | None:
    """Return the address a bridge had: from before, or as its containers show it."""
    if bridge is not None:
        return ipaddress.IPv4Interface(f"{bridge.gateway}/{bridge.subnet.prefixlen}")
    for alias in ours:
        subnet = ipaddress.IPv4Interface(f"{alias.address}/{alias.prefix_len}").network
        return ipaddress.IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")
    return None


def _ipv6_refused() -> dict[str, str]:
    if not _IPV6.is_dir():
        return {}
    settings = f"net.ipv6.conf.{INTERFACE}"
    return {f"{settings}.disable_ipv6": "1", f"{settings}.accept_ra": "0"}


def _translate(exc: NetlinkError, bridge: str) -> Exception:
    if exc.errno == errno.EXFULL:
        return NetworkFullError(
            f"bridge {bridge} is full: the kernel allows {bridges.PORT_LIMIT} containers on one"
        )
    return NetworkUnavailableError(f"connect to {bridge}: {exc}")
