import pytest

from cais.errors import InvalidArgumentError
from cais.network.alias import (
    VethAlias,
    bridge_alias,
    interface_name,
    owner_of,
    parse_veth_alias,
    veth_alias,
)
from cais.network.bridge import NetworkOptions, check_options
from cais.network.mode import (
    canonical_mode,
    joined_container,
    parse_mac,
)


def test_modes() -> None:
    assert [canonical_mode(mode) for mode in ("", "default", "bridge", "host")] == [
        *("bridge", "bridge", "bridge", "host")
    ]
    assert joined_container("container:web") == "web"
    assert joined_container("containers") is None
    for mode in ("container", "container:"):
        with pytest.raises(
            InvalidArgumentError, match=r"invalid container format container:<name\|id>"
        ):
            joined_container(mode)


def test_hardware_addresses() -> None:
    assert parse_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"
    for text in (
        "02:42:ac:11:00",
        "02:42:ac:11-00:02",
        "01:00:00:00:00:01",
        "00:00:00:00:00:00",
        "x",
    ):
        with pytest.raises(InvalidArgumentError, match="invalid MAC address"):
            parse_mac(text)


def test_an_alias_comes_back_to_its_owner_only() -> None:
    owner = owner_of("/var/lib/cais")
    veth = VethAlias("a" * 64, "172.17.0.2", 16)
    alias = veth_alias(owner, veth)
    assert len(alias) < 256
    assert parse_veth_alias(owner, alias) == veth
    assert parse_veth_alias(owner_of("/var/lib/other"), alias) is None
    for other in (
        "",
        "cais",
        bridge_alias(owner),
        f"cais/{owner}/a/b/c/d",
        "uplink to cais/x/y/z/1",
    ):
        assert parse_veth_alias(owner, other) is None


def test_interface_names_are_short_and_new() -> None:
    names = {interface_name("0123456789abcdef") for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) == 15 and name.startswith("cais0123") for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (NetworkOptions(bridge="br0", bip="10.0.0.1/24"), "mutually exclusive"),
        (NetworkOptions(bip="10.0.0.1"), "invalid CIDR address: 10.0.0.1"),
        (NetworkOptions(bip="10.0.0.0/24"), "invalid bridge address: 10.0.0.0/24"),
        (NetworkOptions(bip="10.0.0.1/31"), "invalid bridge address: 10.0.0.1/31"),
        (NetworkOptions(bip="ten"), "invalid CIDR address: ten"),
        (NetworkOptions(bridge="a b"), "invalid bridge name"),
        (NetworkOptions(bridge="x" * 16), "invalid bridge name"),
        (NetworkOptions(mtu=10), "invalid default MTU: 10"),
    ],
)
def test_options_that_cannot_be_meant(options: NetworkOptions, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        check_options(options)
