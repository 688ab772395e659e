"""Address pools: which subnet a bridge gets, and which address a container gets.

Addresses are given in turn and used again after a full cycle, so that what neighbours remember of
a released one is forgotten before it comes back.
"""

import ipaddress
import itertools
from collections.abc import Collection, Iterable, Iterator

from cais.network.errors import NetworkFullError

IPv4Network = ipaddress.IPv4Network

# Docker's default-address-pools of local scope, with the size of what is cut from each.
DEFAULT_POOLS = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
)


def default_subnets() -> Iterator[IPv4Network]:
    """Yield the subnets a network may get by default, in order of preference."""
    for pool, size in DEFAULT_POOLS:
        yield from ipaddress.IPv4Network(pool).subnets(new_prefix=size)


def pick_subnet(taken: Collection[IPv4Network]) -> IPv4Network:
    """Return the first default subnet that overlaps none of ``taken``.

    Raises:
        NetworkFullError: each of them overlaps.

    """
    for subnet in default_subnets():
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise NetworkFullError("all predefined address pools have been fully subnetted")


class AddressPool:
    """The addresses of one subnet. Holds no state worth keeping: rebuilt from the interfaces."""

    def __init__(self, subnet: IPv4Network, reserved: Iterable[str]) -> None:
        """Args: reserved is never given out (the gateway)."""
        self.subnet = subnet
        self._reserved = {int(ipaddress.IPv4Address(address)) for address in reserved}
        self._taken: set[int] = set()
        self._last = int(subnet.network_address)

    def __len__(self) -> int:
        """Return how many addresses are taken."""
        return len(self._taken)

    def take(self) -> str:
        """Take the next free address after the last one taken.

        Raises:
            NetworkFullError: none is free.

        """
        first, last = _host_range(self.subnet)
        following, again = range(self._last + 1, last + 1), range(first, self._last + 1)
        for candidate in itertools.chain(following, again):
            if candidate not in self._taken and candidate not in self._reserved:
                self._taken.add(candidate)
                self._last = candidate
                return str(ipaddress.IPv4Address(candidate))
        raise NetworkFullError(
            f"no available IPv4 addresses on this network's address pools: {self.subnet}"
        )

    def claim(self, address: str) -> bool:
        """Take this very address; return whether it was free."""
        number = int(ipaddress.IPv4Address(address))
        first, last = _host_range(self.subnet)
        if not first <= number <= last or number in self._taken or number in self._reserved:
            return False
        self._taken.add(number)
        return True

    def adopt(self, address: str) -> None:
        """Count an address as taken; those after it come next."""
        number = int(ipaddress.IPv4Address(address))
        self._taken.add(number)
        if ipaddress.IPv4Address(address) in self.subnet:
            self._last = max(self._last, number)

    def free(self, address: str) -> None:
        """Give an address back. Idempotent."""
        self._taken.discard(int(ipaddress.IPv4Address(address)))


def mac_of(address: str) -> str:
    """Return the hardware address Docker derives from an IPv4 address: ``02:42`` and its bytes."""
    return "02:42:" + ipaddress.IPv4Address(address).packed.hex(":")


def _host_range(subnet: IPv4Network) -> tuple[int, int]:
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    return (first + 1, last - 1) if subnet.prefixlen < 31 else (first, last)
