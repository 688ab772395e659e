import contextlib
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.linux.netlink import messages as nl
from cais.linux.netlink import route


def test_the_fixed_parts_have_the_kernels_sizes() -> None:
    assert (nl.HEADER.size, nl.LINK.size, nl.ADDRESS.size, nl.ROUTE.size) == (16, 16, 8, 12)


def test_an_attribute_is_padded_but_its_length_is_not() -> None:
    assert nl.attribute(3, b"abcde") == struct.pack("=HH", 9, 3) + b"abcde\0\0\0"


@given(st.dictionaries(st.integers(1, nl.NLA_TYPE_MASK), st.binary(max_size=50), max_size=8))
def test_attributes_come_back(attributes: dict[int, bytes]) -> None:
    packed = b"".join(nl.attribute(kind, value) for kind, value in attributes.items())
    assert nl.split_attributes(memoryview(packed)) == attributes


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(noise: bytes) -> None:
    for parse in (
        lambda: list(nl.split_messages(noise)),
        lambda: nl.split_attributes(memoryview(noise)),
    ):
        with contextlib.suppress(ValueError):
            parse()


def test_messages_of_a_packet_are_told_apart() -> None:
    packet = nl.message(2, 0x5, 7, b"abc") + b"\0" + nl.message(3, 0, 8, b"")
    found = [
        (kind, flags, seq, bytes(body)) for kind, flags, seq, body in nl.split_messages(packet)
    ]
    assert found == [(2, 0x5, 7, b"abc"), (3, 0, 8, b"")]


@pytest.mark.parametrize("length", [0, 15, 17, 1000])
def test_a_length_that_lies_is_refused(length: int) -> None:
    packet = struct.pack("=IHHII", length, 2, 0, 1, 0)
    with pytest.raises(ValueError, match=f"netlink message of {length} bytes"):
        list(nl.split_messages(packet))


def parts(request: route.Request, fixed: struct.Struct) -> tuple[tuple[int, ...], dict[int, bytes]]:
    payload = memoryview(request[2])
    return fixed.unpack_from(payload), nl.split_attributes(payload[fixed.size :])


def test_a_veth_pair_names_its_peers_namespace() -> None:
    request = route.new_veth("out", "in", peer_netns_fd=9, peer_mac="02:42:ac:11:00:02", mtu=1400)
    assert request[0] == nl.RTM_NEWLINK
    assert request[1] == nl.NLM_F_CREATE | nl.NLM_F_EXCL
    _, attributes = parts(request, nl.LINK)
    assert attributes[nl.IFLA_IFNAME] == b"out\0"
    info = nl.split_attributes(memoryview(attributes[nl.IFLA_LINKINFO]))
    assert info[nl.IFLA_INFO_KIND] == b"veth\0"
    data = nl.split_attributes(memoryview(info[nl.IFLA_INFO_DATA]))
    peer = nl.split_attributes(memoryview(data[nl.VETH_INFO_PEER])[nl.LINK.size :])
    assert peer[nl.IFLA_IFNAME] == b"in\0"
    assert peer[nl.IFLA_ADDRESS] == bytes.fromhex("0242ac110002")
    assert peer[nl.IFLA_NET_NS_FD] == struct.pack("=I", 9)
    assert peer[nl.IFLA_MTU] == struct.pack("=I", 1400)


def test_set_link_changes_only_what_it_is_told() -> None:
    (_, _, index, flags, mask), attributes = _link(route.set_link(5))
    assert (index, flags, mask, attributes) == (5, 0, 0, {})
    (_, _, _, flags, mask), attributes = _link(route.set_link(5, up=False, master=0, alias="x"))
    assert (flags, mask) == (0, nl.IFF_UP)
    assert attributes == {nl.IFLA_MASTER: bytes(4), nl.IFLA_IFALIAS: b"x"}


def _link(request: route.Request) -> tuple[tuple[int, ...], dict[int, bytes]]:
    unpacked = nl.LINK.unpack_from(request[2])
    return unpacked, nl.split_attributes(memoryview(request[2])[nl.LINK.size :])


@pytest.mark.parametrize(
    ("address", "prefix_len", "broadcast"),
    [
        ("172.17.0.2", 16, "172.17.255.255"),
        ("10.7.0.3", 29, "10.7.0.7"),
        ("10.0.0.1", 8, "10.255.255.255"),
    ],
)
def test_an_address_has_its_subnets_broadcast(
    address: str, prefix_len: int, broadcast: str
) -> None:
    (family, length, _, _, index), attributes = parts(
        route.new_address(4, address, prefix_len), nl.ADDRESS
    )
    assert (family, length, index) == (socket.AF_INET, prefix_len, 4)
    assert socket.inet_ntoa(attributes[nl.IFA_LOCAL]) == address
    assert socket.inet_ntoa(attributes[nl.IFA_BROADCAST]) == broadcast


def test_a_default_route_has_no_destination() -> None:
    fixed, attributes = parts(route.new_default_route(2, "172.17.0.1"), nl.ROUTE)
    assert fixed[1] == 0
    assert attributes.keys() == {nl.RTA_GATEWAY, nl.RTA_OIF}


def test_a_refusal_carries_the_kernels_words() -> None:
    echoed = nl.HEADER.pack(16, nl.RTM_NEWLINK, 0, 1, 0)
    words = nl.attribute_text(nl.NLMSGERR_ATTR_MSG, "no such thing")
    capped = memoryview(struct.pack("=i", -22) + echoed + words)
    failure = route._failure(nl.NLM_F_CAPPED | nl.NLM_F_ACK_TLVS, capped, "do it")
    assert failure is not None
    assert (failure.errno, str(failure)) == (22, "[Errno 22] do it: no such thing")
    whole = nl.HEADER.pack(19, nl.RTM_NEWLINK, 0, 1, 0) + b"abc" + b"\0"
    full = memoryview(struct.pack("=i", -22) + whole + words)
    failure = route._failure(nl.NLM_F_ACK_TLVS, full, "do it")
    assert failure is not None
    assert failure.detail == "no such thing"
    assert route._failure(0, memoryview(struct.pack("=i", 0) + echoed), "do it") is None
