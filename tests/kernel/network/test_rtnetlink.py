"""The netlink room against the kernel, beside what ip(8) shows."""

import json
import os

import netns_kit as kit
import pytest

from cais.linux.netlink import route
from cais.linux.netlink.route import NetlinkError, RouteSocket
from cais.testing.isolation import isolated

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_a_bridge_is_what_ip_shows() -> None:
    def body() -> None:
        with RouteSocket() as netlink:
            netlink.batch([route.new_bridge("br0", mac="02:42:01:02:03:04", mtu=1400)])
            link = netlink.find_link("br0")
            assert link is not None
            assert (link.kind, link.mtu, link.mac) == ("bridge", 1400, "02:42:01:02:03:04")
            netlink.batch(
                [
                    route.set_link(link.index, name="br1", alias="mine"),
                    route.new_address(link.index, "10.1.2.3", 20),
                    route.set_link(link.index, up=True),
                ]
            )
            (shown,) = json.loads(kit.ip("-json", "-details", "address", "show", "br1"))
            assert shown["ifalias"] == "mine"
            assert "UP" in shown["flags"]
            inet = next(each for each in shown["addr_info"] if each["family"] == "inet")
            assert (inet["local"], inet["prefixlen"]) == ("10.1.2.3", 20)
            assert inet["broadcast"] == "10.1.15.255"
            again = netlink.find_link("br1")
            assert again is not None
            assert (again.alias, again.is_up) == ("mine", True)
            assert netlink.addresses(link.index) == [(link.index, "10.1.2.3", 20)]
            assert ("10.1.0.0", 20, link.index) in netlink.routes()
            netlink.batch([route.delete_address(link.index, "10.1.2.3", 20)])
            assert netlink.addresses(link.index) == []
            netlink.batch([route.delete_link(link.index)])
            assert netlink.find_link("br1") is None

    isolated(body)


def test_after_a_failure_the_rest_of_the_batch_was_tried() -> None:
    def body() -> None:
        with RouteSocket() as netlink:
            requests = [route.new_bridge(name, mac="02:42:01:02:03:04", mtu=1500) for name in "aba"]
            with pytest.raises(NetlinkError, match="create bridge a: File exists"):
                netlink.batch([*requests, route.delete_link(4711)])
            assert {link.name for link in netlink.links()} >= {"a", "b"}

    isolated(body)


def test_ports_of_one_bridge_are_listed() -> None:
    def body() -> None:
        kit.ip("link", "add", "br0", "type", "bridge")
        kit.ip("link", "add", "p0", "type", "veth", "peer", "name", "q0")
        kit.ip("link", "set", "p0", "master", "br0")
        with RouteSocket() as netlink:
            bridge = netlink.find_link("br0")
            assert bridge is not None
            assert [link.name for link in netlink.links(bridge.index)] == ["p0"]

    isolated(body)


def test_many_interfaces_fill_several_packets() -> None:
    def body() -> None:
        with RouteSocket() as netlink:
            netlink.batch(
                route.new_bridge(f"br{number}", mac=f"02:42:00:00:00:{number:02x}", mtu=1500)
                for number in range(100)
            )
            assert len(netlink.links()) >= 101

    isolated(body)
