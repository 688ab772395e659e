"""One NETLINK_ROUTE socket and the few things a container network needs from it.

A socket works on the network namespace it was created in, whatever namespace its holder is in:
the shim makes one inside each namespace and hands the descriptor to the daemon.

Several changes go out in one packet (``RouteSocket.batch``): the kernel takes its lock once per
message, but the process makes one call.

Spec: rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from cais.linux.netlink import messages as nl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

Request = tuple[int, int, bytes, str]
"""Message kind, flags beyond REQUEST and ACK, payload, and what it does (for the error)."""

_BUFFER_BYTES = 64 * 1024
_DUMP_ATTEMPTS = 8


class NetlinkError(OSError):
    """The kernel refused a request; ``step`` says which, ``detail`` is the kernel's own text."""

    def __init__(self, code: int, step: str, detail: str = "") -> None:
        super().__init__(code, f"{step}: {detail or os.strerror(code)}")
        self.step = step
        self.detail = detail


class Link:
    """One interface as a dump shows it; ``master`` and ``peer`` are indexes, 0 when none."""

    __slots__ = ("alias", "index", "is_up", "kind", "mac", "master", "mtu", "name", "peer")

    def __init__(self, index: int, flags: int, attributes: dict[int, bytes]) -> None:
        self.index = index
        self.is_up = bool(flags & nl.IFF_UP)
        self.name = nl.text(attributes.get(nl.IFLA_IFNAME, b""))
        self.alias = nl.text(attributes.get(nl.IFLA_IFALIAS, b""))
        self.mac = attributes.get(nl.IFLA_ADDRESS, b"").hex(":")
        self.mtu = _u32(attributes.get(nl.IFLA_MTU))
        self.master = _u32(attributes.get(nl.IFLA_MASTER))
        self.peer = _u32(attributes.get(nl.IFLA_LINK))
        info = nl.split_attributes(memoryview(attributes.get(nl.IFLA_LINKINFO, b"")))
        self.kind = nl.text(info.get(nl.IFLA_INFO_KIND, b""))

    def __repr__(self) -> str:
        return (
            f"<Link {self.index} {self.name} {self.kind or '-'} {'up' if self.is_up else 'down'}>"
        )


class RouteSocket:
    """Owner of a NETLINK_ROUTE socket; use with ``with``."""

    def __init__(self, fd: int | None = None) -> None:
        """Open a socket in the caller's network namespace, or take over ``fd``."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE, fd
        )
        self._sequence = 0
        # Errors then carry the kernel's own words, dumps honour their filters.
        for option in (nl.NETLINK_EXT_ACK, nl.NETLINK_CAP_ACK, nl.NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(nl.SOL_NETLINK, option, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        self._socket.close()

    def batch(self, requests: Iterable[Request]) -> None:
        """Send changes in one packet; all are tried, the first failure is raised.

        Blocks: until the kernel has carried them out.

        Raises:
            NetlinkError: with the step of the first that failed.

        """
        steps: dict[int, str] = {}
        packet = bytearray()
        for kind, flags, payload, step in requests:
            self._sequence += 1
            steps[self._sequence] = step
            packet += nl.message(
                kind, nl.NLM_F_REQUEST | nl.NLM_F_ACK | flags, self._sequence, payload
            )
        if steps:
            self._socket.send(packet)
            self._collect_acks(steps)

    def _collect_acks(self, steps: dict[int, str]) -> None:
        failures: dict[int, NetlinkError] = {}
        while steps:
            for kind, flags, sequence, payload in nl.split_messages(self._receive()):
                step = steps.pop(sequence, None)
                if step is not None and kind == nl.NLMSG_ERROR:
                    failure = _failure(flags, payload, step)
                    if failure is not None:
                        failures[sequence] = failure
        if failures:
            raise failures[min(failures)]

    def _receive(self) -> bytes:
        while True:
            packet, _, flags, (sender, _) = self._socket.recvmsg(_BUFFER_BYTES)
            if flags & socket.MSG_TRUNC:
                raise NetlinkError(errno.EMSGSIZE, "receive from netlink")
            if sender == 0:  # the kernel; whoever else may send here has nothing to say
                return packet

    def _dump(self, kind: int, payload: bytes, step: str) -> list[memoryview]:
        for _attempt in range(_DUMP_ATTEMPTS):
            self._sequence += 1
            flags = nl.NLM_F_REQUEST | nl.NLM_F_DUMP
            self._socket.send(nl.message(kind, flags, self._sequence, payload))
            found, consistent = self._collect_dump(step)
            if consistent:
                return found
        return found  # under steady change a dump that may lack or repeat one entry is the best

    def _collect_dump(self, step: str) -> tuple[list[memoryview], bool]:
        found: list[memoryview] = []
        consistent = True
        while True:
            for kind, flags, sequence, payload in nl.split_messages(self._receive()):
                if sequence != self._sequence:
                    continue
                consistent = consistent and not flags & nl.NLM_F_DUMP_INTR
                if kind == nl.NLMSG_DONE:
                    code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                    if code < 0:
                        raise NetlinkError(-code, step)
                    return found, consistent
                if kind == nl.NLMSG_ERROR:
                    failure = _failure(flags, payload, step)
                    if failure is not None:
                        raise failure
                    return found, consistent
                found.append(payload)

    # links

    def links(self, master: int = 0) -> list[Link]:
        """Return every interface, or those enslaved to the interface with index ``master``."""
        payload = nl.LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        payload += nl.attribute_u32(nl.IFLA_EXT_MASK, nl.RTEXT_FILTER_SKIP_STATS)
        if master:
            payload += nl.attribute_u32(nl.IFLA_MASTER, master)
        return [_link(entry) for entry in self._dump(nl.RTM_GETLINK, payload, "list interfaces")]

    def find_link(self, name: str) -> Link | None:
        """Return the interface called ``name`` or None."""
        return self._get_link(0, nl.attribute_text(nl.IFLA_IFNAME, name), name)

    def find_link_by_index(self, index: int) -> Link | None:
        """Return the interface with ``index`` or None."""
        return self._get_link(index, b"", str(index))

    def _get_link(self, index: int, attributes: bytes, shown: str) -> Link | None:
        self._sequence += 1
        payload = nl.LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
        self._socket.send(nl.message(nl.RTM_GETLINK, nl.NLM_F_REQUEST, self._sequence, payload))
        while True:
            for kind, flags, sequence, answer in nl.split_messages(self._receive()):
                if sequence != self._sequence:
                    continue
                if kind != nl.NLMSG_ERROR:
                    return _link(answer)
                failure = _failure(flags, answer, f"look up interface {shown}")
                if failure is not None and failure.errno != errno.ENODEV:
                    raise failure
                return None

    # addresses and routes

    def addresses(self, index: int = 0) -> list[tuple[int, str, int]]:
        """Return ``(interface index, address, prefix length)`` of IPv4, of all or one interface."""
        payload = nl.ADDRESS.pack(socket.AF_INET, 0, 0, 0, index)
        found = []
        for entry in self._dump(nl.RTM_GETADDR, payload, "list addresses"):
            _, prefix_len, _, _, owner = nl.ADDRESS.unpack_from(entry)
            attributes = nl.split_attributes(entry[nl.ADDRESS.size :])
            local = attributes.get(nl.IFA_LOCAL) or attributes.get(nl.IFA_ADDRESS)
            if local is not None and (not index or owner == index):
                found.append((owner, socket.inet_ntop(socket.AF_INET, local), prefix_len))
        return found

    def kept_addresses(self, index: int) -> list[bytes]:
        """Return the permanent global addresses of an interface, of every family, as the kernel's.

        ``restore_address`` takes them.
        """
        payload = nl.ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, index)
        found = []
        for entry in self._dump(nl.RTM_GETADDR, payload, "list addresses"):
            _, _, flags, scope, owner = nl.ADDRESS.unpack_from(entry)
            if owner == index and scope == nl.RT_SCOPE_UNIVERSE and flags & nl.IFA_F_PERMANENT:
                found.append(bytes(entry))
        return found

    def routes(self) -> list[tuple[str, int, int]]:
        """Return ``(destination, prefix length, interface index)`` of the main IPv4 table."""
        payload = nl.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found = []
        for entry in self._dump(nl.RTM_GETROUTE, payload, "list routes"):
            _, prefix_len, _, _, table, _, _, kind, _ = nl.ROUTE.unpack_from(entry)
            if table != nl.RT_TABLE_MAIN or kind != nl.RTN_UNICAST:
                continue
            attributes = nl.split_attributes(entry[nl.ROUTE.size :])
            destination = attributes.get(nl.RTA_DST, bytes(4))
            name = socket.inet_ntop(socket.AF_INET, destination)
            found.append((name, prefix_len, _u32(attributes.get(nl.RTA_OIF))))
        return found


# requests


def new_bridge(name: str, *, mac: str, mtu: int) -> Request:
    """Make a bridge, down; EEXIST when the name is taken."""
    payload = _link_header() + nl.attribute_text(nl.IFLA_IFNAME, name)
    payload += nl.attribute(nl.IFLA_ADDRESS, _mac_bytes(mac)) + nl.attribute_u32(nl.IFLA_MTU, mtu)
    payload += nl.nested(nl.IFLA_LINKINFO, nl.attribute_text(nl.IFLA_INFO_KIND, "bridge"))
    return nl.RTM_NEWLINK, _CREATE, payload, f"create bridge {name}"


def new_veth(name: str, peer_name: str, *, peer_netns_fd: int, peer_mac: str, mtu: int) -> Request:
    """Make a veth pair, both ends down, the peer in another network namespace from the start."""
    peer = nl.LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    peer += nl.attribute_text(nl.IFLA_IFNAME, peer_name) + nl.attribute_u32(nl.IFLA_MTU, mtu)
    peer += nl.attribute(nl.IFLA_ADDRESS, _mac_bytes(peer_mac))
    peer += nl.attribute_u32(nl.IFLA_NET_NS_FD, peer_netns_fd)
    kind = nl.attribute_text(nl.IFLA_INFO_KIND, "veth")
    data = nl.nested(nl.IFLA_INFO_DATA, nl.attribute(nl.VETH_INFO_PEER, peer))
    payload = _link_header() + nl.attribute_text(nl.IFLA_IFNAME, name)
    payload += nl.attribute_u32(nl.IFLA_MTU, mtu) + nl.nested(nl.IFLA_LINKINFO, kind, data)
    return nl.RTM_NEWLINK, _CREATE, payload, f"create veth pair {name}, {peer_name}"


def set_link(
    index: int,
    *,
    up: bool | None = None,
    name: str | None = None,
    master: int | None = None,
    alias: str | None = None,
    link_local: bool | None = None,
) -> Request:
    """Change an interface; what is None stays.

    ``name`` needs an interface that is down; ``link_local=False``: no IPv6 address by itself, in a
    request before that with ``up``, which older kernels (6.1) heed first. An alias cannot be
    given when an interface is made, only here.
    """
    flags = nl.IFF_UP if up else 0
    payload = nl.LINK.pack(socket.AF_UNSPEC, 0, index, flags, 0 if up is None else nl.IFF_UP)
    if name is not None:
        payload += nl.attribute_text(nl.IFLA_IFNAME, name)
    if master is not None:
        payload += nl.attribute_u32(nl.IFLA_MASTER, master)
    if alias is not None:
        payload += nl.attribute(nl.IFLA_IFALIAS, alias.encode())
    if link_local is not None:
        payload += _address_generation(link_local=link_local)
    return nl.RTM_SETLINK, 0, payload, f"configure interface {index}"


def move_link(index: int, netns_fd: int, name: str) -> Request:
    """Move an interface to another network namespace under ``name``, where ``%d`` is a number.

    It is down afterwards and has no address. EEXIST: the name is taken there.
    """
    payload = nl.LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    payload += nl.attribute_u32(nl.IFLA_NET_NS_FD, netns_fd)
    payload += nl.attribute_text(nl.IFLA_IFNAME, name)
    return nl.RTM_NEWLINK, 0, payload, f"move interface {index}"


def delete_link(index: int) -> Request:
    """Remove an interface; a veth's peer goes with it."""
    payload = nl.LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return nl.RTM_DELLINK, 0, payload, f"delete interface {index}"


def new_address(index: int, address: str, prefix_len: int) -> Request:
    """Give an interface an IPv4 address with the subnet's broadcast address."""
    packed = socket.inet_pton(socket.AF_INET, address)
    host_bits = (1 << (32 - prefix_len)) - 1
    broadcast = (int.from_bytes(packed, "big") | host_bits).to_bytes(4, "big")
    payload = nl.ADDRESS.pack(socket.AF_INET, prefix_len, 0, nl.RT_SCOPE_UNIVERSE, index)
    payload += nl.attribute(nl.IFA_LOCAL, packed) + nl.attribute(nl.IFA_ADDRESS, packed)
    payload += nl.attribute(nl.IFA_BROADCAST, broadcast)
    return nl.RTM_NEWADDR, _CREATE, payload, f"add address {address}/{prefix_len}"


def restore_address(index: int, record: bytes) -> Request:
    """Give an interface an address another one had, see ``RouteSocket.kept_addresses``."""
    family, prefix_len, _, scope, _ = nl.ADDRESS.unpack_from(record)
    attributes = nl.split_attributes(memoryview(record)[nl.ADDRESS.size :])
    payload = nl.ADDRESS.pack(family, prefix_len, 0, scope, index)
    for kind in (nl.IFA_LOCAL, nl.IFA_ADDRESS, nl.IFA_BROADCAST):
        if kind in attributes:
            payload += nl.attribute(kind, attributes[kind])
    return nl.RTM_NEWADDR, _CREATE, payload, f"restore an address of interface {index}"


def delete_address(index: int, address: str, prefix_len: int) -> Request:
    """Take an IPv4 address away."""
    payload = nl.ADDRESS.pack(socket.AF_INET, prefix_len, 0, nl.RT_SCOPE_UNIVERSE, index)
    payload += nl.attribute(nl.IFA_LOCAL, socket.inet_pton(socket.AF_INET, address))
    return nl.RTM_DELADDR, 0, payload, f"delete address {address}/{prefix_len}"


def new_default_route(index: int, gateway: str) -> Request:
    """Send everything that is not on a link to ``gateway``."""
    fixed = (socket.AF_INET, 0, 0, 0, nl.RT_TABLE_MAIN, nl.RTPROT_BOOT, nl.RT_SCOPE_UNIVERSE)
    payload = nl.ROUTE.pack(*fixed, nl.RTN_UNICAST, 0)
    payload += nl.attribute(nl.RTA_GATEWAY, socket.inet_pton(socket.AF_INET, gateway))
    payload += nl.attribute_u32(nl.RTA_OIF, index)
    return nl.RTM_NEWROUTE, _CREATE, payload, f"add default route via {gateway}"


_CREATE = nl.NLM_F_CREATE | nl.NLM_F_EXCL


def _link_header() -> bytes:
    return nl.LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)


def _address_generation(*, link_local: bool) -> bytes:
    mode = 0 if link_local else nl.IN6_ADDR_GEN_MODE_NONE
    inet6 = nl.nested(socket.AF_INET6, nl.attribute(nl.IFLA_INET6_ADDR_GEN_MODE, bytes([mode])))
    return nl.nested(nl.IFLA_AF_SPEC, inet6)


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _u32(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value and len(value) == 4 else 0


def _link(entry: memoryview) -> Link:
    _, _, index, flags, _ = nl.LINK.unpack_from(entry)
    return Link(index, flags, nl.split_attributes(entry[nl.LINK.size :]))


def _failure(flags: int, payload: memoryview, step: str) -> NetlinkError | None:
    """Return what an NLMSG_ERROR says, None for an acknowledgement.

    Its payload: errno negated, the request's header (the whole request unless CAPPED), then
    attributes with the kernel's text when ACK_TLVS is set.
    """
    (code,) = struct.unpack_from("=i", payload)
    if code == 0:
        return None
    detail = ""
    if flags & nl.NLM_F_ACK_TLVS:
        echoed = nl.HEADER.size
        if not flags & nl.NLM_F_CAPPED:
            (echoed,) = struct.unpack_from("=I", payload, 4)
        tail = payload[4 + echoed + (-echoed % 4) :]
        detail = nl.text(nl.split_attributes(tail).get(nl.NLMSGERR_ATTR_MSG, b""))
    return NetlinkError(-code, step, detail)
