"""What a create request asks of networks, checked before anything is made."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.spec.container import EndpointIpamConfig, NetworkingConfig

PREDEFINED = ("bridge", "host", "none", "default")


def check_endpoints(networking: NetworkingConfig, network_mode: str) -> None:
    """Refuse networks besides the mode, and addresses that cannot be had.

    Raises:
        InvalidArgumentError: Docker's texts.

    """
    endpoints = networking.endpoints_config or {}
    names = {"bridge" if name == "default" else name for name in endpoints}
    if len(names) > 1:
        raise InvalidArgumentError(
            f"Container cannot be connected to network endpoints: {', '.join(sorted(names))}"
        )
    for name, settings in endpoints.items():
        # An unknown mode is found out at the start, as in Docker: a 404 now would read as a
        # missing image to the docker CLI.
        if name not in PREDEFINED and name != network_mode:
            raise InvalidArgumentError(f"network {name} not found")
        if settings is not None and settings.ipam_config is not None:
            _check_addresses("bridge" if name == "default" else name, settings.ipam_config)


def _check_addresses(network: str, asked: EndpointIpamConfig) -> None:
    if faults := list(_faults(network, asked)):
        text = faults[0] if len(faults) == 1 else "\n".join(f"* {fault}" for fault in faults)
        raise InvalidArgumentError(
            f"invalid config for network {network}: invalid endpoint settings:\n{text}"
        )


def _faults(network: str, asked: EndpointIpamConfig) -> Iterator[str]:
    ipv4, ipv6 = asked.ipv4_address, asked.ipv6_address
    if network in PREDEFINED and (ipv4 or ipv6 or asked.link_local_ips):
        yield "user specified IP address is supported on user defined networks only"
    if ipv4 and not _is_address(ipv4, 4):
        yield f"invalid IPv4 address: {ipv4[:64]}"
    if ipv6 and not _is_address(ipv6, 6):
        yield f"invalid IPv6 address: {ipv6[:64]}"
    for address in asked.link_local_ips or ():
        if not (_is_address(address, 4) or _is_address(address, 6)):
            yield f"invalid link-local IP address: {address[:64]}"


def _is_address(text: str, version: int) -> bool:
    try:
        return "%" not in text and ipaddress.ip_address(text).version == version
    except ValueError:
        return False
