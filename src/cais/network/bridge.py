"""The default bridge: found again, or made, and kept in shape.

Ours is recognised by its alias, not by its name: a ``docker0`` of another engine is not used, as
two engines on one bridge would give the same address twice; the next free name is taken instead.
A bridge named by ``--bridge`` must exist and is never removed.
"""

import contextlib
import ipaddress
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cais.errors import InvalidArgumentError
from cais.linux.netlink import route
from cais.linux.netlink.route import Link, RouteSocket
from cais.network.alias import bridge_alias, interface_name
from cais.network.errors import NetworkUnavailableError
from cais.network.pool import IPv4Network, pick_subnet

DEFAULT_NAME = "docker0"
PORT_LIMIT = 1023  # net/bridge/br_private.h: BR_PORT_BITS 10, and port 0 is not used
_OWN_NAMES = (DEFAULT_NAME, *(f"cais{number}" for number in range(10)))
_SYSCTL = Path("/proc/sys/net")
_INTERFACE_NAME = re.compile(r"[^\s/:]{1,15}")


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


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge in working order."""

    name: str
    index: int
    gateway: str
    subnet: IPv4Network
    is_ours: bool


def check_options(options: NetworkOptions) -> None:
    """Refuse what cannot be meant.

    Raises:
        InvalidArgumentError: malformed, or ``bridge`` and ``bip`` together.

    """
    if options.bridge is not None and options.bip is not None:
        raise InvalidArgumentError(
            "you specified -b & --bip, mutually exclusive options: please specify only one"
        )
    if options.bridge is not None and not _INTERFACE_NAME.fullmatch(options.bridge):
        raise InvalidArgumentError(f"invalid bridge name: {options.bridge!r}")
    if not 68 <= options.mtu <= 65535:
        raise InvalidArgumentError(f"invalid default MTU: {options.mtu}")
    _bip(options)


def ensure_bridge(
    netlink: RouteSocket,
    options: NetworkOptions,
    owner: str,
    remembered: ipaddress.IPv4Interface | None = None,
) -> Bridge:
    """Return the default bridge, up and with its address. Idempotent.

    Args:
        remembered: the address it had before, if it lost it and ``options`` give none.

    Raises:
        NetworkUnavailableError: the kernel refuses, a bridge given by name does not exist, or
            no name or subnet is free.

    """
    try:
        if options.bridge is not None:
            link = _given_bridge(netlink, options.bridge)
        else:
            link = _own_bridge(netlink, options, owner)
        return _bring_up(netlink, link, options, remembered)
    except OSError as exc:
        raise NetworkUnavailableError(f"default bridge: {exc}") from exc


def is_intact(netlink: RouteSocket, bridge: Bridge) -> bool:
    """Tell whether the bridge is still there under its name, up, with its address."""
    link = netlink.find_link_by_index(bridge.index)
    if link is None or link.name != bridge.name or not link.is_up:
        return False
    return any(address == bridge.gateway for _, address, _ in netlink.addresses(bridge.index))


def _given_bridge(netlink: RouteSocket, name: str) -> Link:
    link = netlink.find_link(name)
    if link is None or link.kind != "bridge":
        raise NetworkUnavailableError(
            f"bridge device with non default name {name} must be created manually"
        )
    return link


def _own_bridge(netlink: RouteSocket, options: NetworkOptions, owner: str) -> Link:
    links = netlink.links()
    _remove_half_made(netlink, links, owner)
    for link in links:
        if link.alias == bridge_alias(owner):
            return link
    used = {link.name for link in links}
    for name in _OWN_NAMES:
        if name not in used:
            return _create(netlink, name, options, owner)
    raise NetworkUnavailableError(f"no free bridge name: tried {', '.join(_OWN_NAMES)}")


def _create(netlink: RouteSocket, name: str, options: NetworkOptions, owner: str) -> Link:
    """Make a bridge under a passing name; name and alias then arrive in one step."""
    passing = interface_name(owner)
    mac = "02:42:" + secrets.token_bytes(4).hex(":")
    netlink.batch([route.new_bridge(passing, mac=mac, mtu=options.mtu)])
    link = netlink.find_link(passing)
    assert link is not None, "created a moment ago"
    netlink.batch([route.set_link(link.index, name=name, alias=bridge_alias(owner))])
    link.name, link.alias = name, bridge_alias(owner)
    return link


def _remove_half_made(netlink: RouteSocket, links: list[Link], owner: str) -> None:
    prefix = interface_name(owner)[:8]
    for link in links:
        if link.kind == "bridge" and link.name.startswith(prefix) and not link.alias:
            with contextlib.suppress(OSError):
                netlink.batch([route.delete_link(link.index)])


def _bring_up(
    netlink: RouteSocket,
    link: Link,
    options: NetworkOptions,
    remembered: ipaddress.IPv4Interface | None,
) -> Bridge:
    refuse_ipv6(link.name)
    present = [
        ipaddress.IPv4Interface(f"{address}/{prefix_len}")
        for _, address, prefix_len in netlink.addresses(link.index)
    ]
    wanted = _wanted_address(netlink, link, options, present, remembered)
    changes = []
    if options.bip is not None:  # our own bridge, and the address it is to have has changed
        changes = [
            route.delete_address(link.index, str(stale.ip), stale.network.prefixlen)
            for stale in present
            if stale != wanted
        ]
    if wanted not in present:
        changes.append(route.new_address(link.index, str(wanted.ip), wanted.network.prefixlen))
    netlink.batch(changes)
    netlink.batch(
        [route.set_link(link.index, link_local=False), route.set_link(link.index, up=True)]
    )
    return Bridge(link.name, link.index, str(wanted.ip), wanted.network, options.bridge is None)


def _wanted_address(
    netlink: RouteSocket,
    link: Link,
    options: NetworkOptions,
    present: list[ipaddress.IPv4Interface],
    remembered: ipaddress.IPv4Interface | None,
) -> ipaddress.IPv4Interface:
    if (given := _bip(options)) is not None:
        return given
    if remembered is not None:
        same = [address for address in present if address.network == remembered.network]
        return same[0] if same else remembered
    return present[0] if present else _pick_address(netlink, link.index)


def _bip(options: NetworkOptions) -> ipaddress.IPv4Interface | None:
    if options.bip is None:
        return None
    try:
        address = ipaddress.IPv4Interface(options.bip if "/" in options.bip else "")
    except ValueError as exc:
        raise InvalidArgumentError(f"invalid CIDR address: {options.bip}") from exc
    subnet = address.network
    if subnet.prefixlen > 30 or address.ip in {subnet.network_address, subnet.broadcast_address}:
        raise InvalidArgumentError(f"invalid bridge address: {options.bip} leaves no room")
    return address


def _pick_address(netlink: RouteSocket, own_index: int) -> ipaddress.IPv4Interface:
    subnet = pick_subnet(list(_taken_subnets(netlink, own_index)))
    return ipaddress.IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")


def _taken_subnets(netlink: RouteSocket, own_index: int) -> Iterator[IPv4Network]:
    for destination, prefix_len, index in netlink.routes():
        if prefix_len and index != own_index:
            yield IPv4Network(f"{destination}/{prefix_len}")
    for index, address, prefix_len in netlink.addresses():
        if index != own_index:
            yield IPv4Network(f"{address}/{prefix_len}", strict=False)


def refuse_ipv6(interface: str) -> None:
    """Keep an IPv4-only interface of the host from router advertisements and IPv6 addresses."""
    settings = _SYSCTL / "ipv6/conf" / interface
    with contextlib.suppress(OSError):  # a kernel without IPv6, or /proc/sys read-only
        (settings / "accept_ra").write_text("0")
        (settings / "disable_ipv6").write_text("1")
