import ipaddress

import pytest

from cais.network.errors import NetworkFullError
from cais.network.pool import AddressPool, default_subnets, mac_of, pick_subnet


def pool(subnet: str = "10.7.0.0/29", *reserved: str) -> AddressPool:
    return AddressPool(ipaddress.IPv4Network(subnet), reserved or ("10.7.0.1",))


def test_addresses_come_in_turn_and_again_after_a_cycle() -> None:
    addresses = pool()
    assert [addresses.take() for _ in range(3)] == ["10.7.0.2", "10.7.0.3", "10.7.0.4"]
    addresses.free("10.7.0.2")
    addresses.free("10.7.0.3")
    assert [addresses.take() for _ in range(4)] == ["10.7.0.5", "10.7.0.6", "10.7.0.2", "10.7.0.3"]


def test_a_full_pool_says_so_until_one_is_free() -> None:
    addresses = pool()
    for _ in range(5):
        addresses.take()
    with pytest.raises(NetworkFullError, match=r"no available IPv4 addresses .*10\.7\.0\.0/29"):
        addresses.take()
    addresses.free("10.7.0.4")
    addresses.free("10.7.0.4")
    assert addresses.take() == "10.7.0.4"


def test_network_and_broadcast_address_are_never_given() -> None:
    addresses = pool("10.7.0.0/30", "10.7.0.2")
    assert addresses.take() == "10.7.0.1"
    with pytest.raises(NetworkFullError):
        addresses.take()


def test_adopted_addresses_are_taken_and_the_next_comes_after() -> None:
    addresses = pool()
    addresses.adopt("10.7.0.3")
    addresses.adopt("10.9.9.9")
    assert [addresses.take() for _ in range(2)] == ["10.7.0.4", "10.7.0.5"]
    addresses.free("10.7.0.3")
    assert [addresses.take() for _ in range(3)] == ["10.7.0.6", "10.7.0.2", "10.7.0.3"]


def test_an_address_is_claimed_once_and_only_where_it_belongs() -> None:
    addresses = pool()
    assert addresses.claim("10.7.0.4")
    for refused in ("10.7.0.4", "10.7.0.1", "10.7.0.0", "10.7.0.7", "10.7.0.8"):
        assert not addresses.claim(refused)
    assert [addresses.take() for _ in range(3)] == ["10.7.0.2", "10.7.0.3", "10.7.0.5"]


def test_docker_s_subnets_in_dockers_order() -> None:
    subnets = [str(subnet) for subnet in default_subnets()]
    assert subnets[:5] == [f"172.{second}.0.0/16" for second in range(17, 22)]
    assert subnets[14:17] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    assert len(subnets) == 15 + 16


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "172.17.0.0/16"),
        (["172.17.3.0/24"], "172.18.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.1.1/32"], "192.168.16.0/20"),
    ],
)
def test_a_subnet_overlaps_nothing_of_the_host(taken: list[str], expected: str) -> None:
    assert str(pick_subnet([ipaddress.IPv4Network(each) for each in taken])) == expected


def test_when_everything_overlaps() -> None:
    with pytest.raises(NetworkFullError, match="fully subnetted"):
        pick_subnet([ipaddress.IPv4Network("0.0.0.0/0")])


def test_the_mac_follows_the_address() -> None:
    assert mac_of("172.17.0.2") == "02:42:ac:11:00:02"
