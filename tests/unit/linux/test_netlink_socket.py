"""What any process may ask the kernel, and answers no kernel gives."""

import socket

import pytest

from cais.linux.netlink import messages as nl
from cais.linux.netlink.route import Link, NetlinkError, RouteSocket, delete_link


def test_the_loopback_interface_is_found() -> None:
    with RouteSocket() as netlink:
        found = netlink.find_link("lo")
        assert found is not None
        assert (found.name, found.index, found.mac) == ("lo", 1, "00:00:00:00:00:00")
        assert "lo" in {link.name for link in netlink.links()}
        assert netlink.find_link_by_index(found.index) is not None
        assert repr(found).startswith("<Link 1 lo")


def test_what_is_not_there_is_none() -> None:
    with RouteSocket() as netlink:
        assert netlink.find_link("absent0") is None
        assert netlink.find_link_by_index(2**30) is None


def test_a_refused_change_names_its_step() -> None:
    with RouteSocket() as netlink, pytest.raises(NetlinkError) as refused:
        netlink.batch([delete_link(2**30), delete_link(2**30 + 1)])
    assert refused.value.step == f"delete interface {2**30}"
    assert refused.value.errno in {1, 19}  # EPERM without privilege, ENODEV with it


def test_an_empty_batch_asks_nothing() -> None:
    with RouteSocket() as netlink:
        netlink.batch([])


class Script:
    """A socket that answers what it is told, from whom it is told."""

    def __init__(self, *packets: tuple[bytes, int]) -> None:
        self.packets = list(packets)
        self.sent: list[bytes] = []

    def send(self, packet: bytes) -> None:
        self.sent.append(bytes(packet))

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        packet, sender = self.packets.pop(0)
        return packet, [], 0, (sender, 0)

    def close(self) -> None:
        pass


def scripted(*packets: tuple[bytes, int]) -> tuple[RouteSocket, Script]:
    netlink = RouteSocket()
    netlink.close()
    script = Script(*packets)
    netlink._socket = script  # type: ignore[assignment]
    return netlink, script


def acknowledgement(sequence: int, code: int = 0) -> bytes:
    body = code.to_bytes(4, "little", signed=True) + bytes(16)
    return nl.message(nl.NLMSG_ERROR, 0, sequence, body)


def test_answers_from_others_than_the_kernel_are_not_heard() -> None:
    forged = acknowledgement(1, -13)
    netlink, script = scripted((forged, 4711), (acknowledgement(1), 0))
    netlink.batch([delete_link(3)])
    assert script.packets == []


def test_one_packet_carries_a_batch_and_the_first_failure_counts() -> None:
    netlink, script = scripted(
        (acknowledgement(2, -17) + acknowledgement(1), 0), (acknowledgement(3, -1), 0)
    )
    with pytest.raises(NetlinkError, match="delete interface 12"):
        netlink.batch([delete_link(11), delete_link(12), delete_link(13)])
    assert len(script.sent) == 1


def test_a_late_answer_to_an_earlier_question_is_passed_over() -> None:
    late = acknowledgement(99, -5)
    netlink, _ = scripted((late + acknowledgement(1), 0))
    netlink.batch([delete_link(3)])


def test_an_interrupted_dump_is_asked_again() -> None:
    def entry(sequence: int, name: str, flags: int = 0) -> bytes:
        body = nl.LINK.pack(0, 0, 7, 0, 0) + nl.attribute_text(nl.IFLA_IFNAME, name)
        return nl.message(nl.RTM_NEWLINK, nl.NLM_F_MULTI | flags, sequence, body)

    def done(sequence: int) -> bytes:
        return nl.message(nl.NLMSG_DONE, nl.NLM_F_MULTI, sequence, bytes(4))

    netlink, script = scripted(
        (entry(1, "old", nl.NLM_F_DUMP_INTR), 0), (done(1), 0), (entry(2, "new") + done(2), 0)
    )
    assert [link.name for link in netlink.links()] == ["new"]
    assert len(script.sent) == 2


def test_a_dump_that_fails_says_so() -> None:
    code = (-95).to_bytes(4, "little", signed=True)
    netlink, _ = scripted((nl.message(nl.NLMSG_DONE, nl.NLM_F_MULTI, 1, code), 0))
    with pytest.raises(NetlinkError, match="list interfaces"):
        netlink.links()


def test_a_descriptor_is_taken_over() -> None:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    fd = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE).detach()
    with RouteSocket(fd) as netlink:
        assert isinstance(netlink.find_link_by_index(1), Link)
    with pytest.raises(OSError, match="Bad file descriptor"):
        socket.socket(fileno=fd).getsockname()
