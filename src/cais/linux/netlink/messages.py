"""Netlink messages as bytes: headers, attributes, and the numbers of rtnetlink.

A request is a header, a fixed part per message kind, and attributes: length, type, value, padded
to four bytes; a nested attribute's value is attributes again.

Spec: netlink(7), rtnetlink(7); Linux include/uapi/linux/{netlink,rtnetlink,if_link,veth}.h.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x2, 0x4, 0x10
NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x200, 0x400, 0x300
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_EXT_MASK = 20, 26, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_F_PERMANENT = 1, 2, 4, 0x80
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST, RT_SCOPE_UNIVERSE = 254, 3, 1, 0
IFF_UP = 0x1

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, device type, index, flags, change mask
ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst len, src len, tos, table, proto, scope,
_ATTRIBUTE = struct.Struct("=HH")  #     type, flags


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    length = 4 + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def attribute_u32(kind: int, value: int) -> bytes:
    """Return an attribute holding a 32-bit number in host order."""
    return attribute(kind, struct.pack("=I", value))


def attribute_text(kind: int, value: str) -> bytes:
    """Return an attribute holding a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *members: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(members))


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return a whole request."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def split_messages(packet: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yield ``(type, flags, sequence, payload)`` of each message in a received packet.

    Raises:
        ValueError: a length points outside the packet.

    """
    view, offset = memoryview(packet), 0
    while offset + HEADER.size <= len(view):
        length, kind, flags, sequence, _port = HEADER.unpack_from(view, offset)
        if length < HEADER.size or offset + length > len(view):
            raise ValueError(f"netlink message of {length} bytes in a packet of {len(view)}")
        yield kind, flags, sequence, view[offset + HEADER.size : offset + length]
        offset += length + (-length % 4)


def split_attributes(view: memoryview) -> dict[int, bytes]:
    """Return attributes by type; flags are taken off, of a repeated type the last one stays."""
    found, offset = {}, 0
    while offset + 4 <= len(view):
        length, kind = _ATTRIBUTE.unpack_from(view, offset)
        if length < 4 or offset + length > len(view):
            raise ValueError(f"netlink attribute of {length} bytes at {offset} of {len(view)}")
        found[kind & NLA_TYPE_MASK] = bytes(view[offset + 4 : offset + length])
        offset += length + (-length % 4)
    return found


def text(value: bytes) -> str:
    """Return a NUL-terminated string."""
    return value.split(b"\0", 1)[0].decode(errors="replace")
