"""Network modes: what ``--network`` may be, and what it excludes.

Spec: HostConfig.NetworkMode of the Docker Engine API.
"""

import re
from dataclasses import dataclass

from cais.errors import InvalidArgumentError

CONTAINER_PREFIX = "container:"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?P<sep>[:-])(?:[0-9A-Fa-f]{2}(?P=sep)){4}[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """What a create request says of the network besides the mode."""

    has_hostname: bool = False
    has_mac: bool = False
    has_links: bool = False
    has_dns: bool = False
    has_extra_hosts: bool = False
    publishes_ports: bool = False
    exposes_ports: bool = False


def canonical_mode(mode: str) -> str:
    """Return the mode with Docker's defaults resolved: ``""`` and ``default`` are ``bridge``."""
    return "bridge" if mode in {"", "default"} else mode


def joined_container(mode: str) -> str | None:
    """Return the container of ``container:<name or id>``, None for another mode.

    Raises:
        InvalidArgumentError: nothing follows the colon.

    """
    if mode != "container" and not mode.startswith(CONTAINER_PREFIX):
        return None
    reference = mode[len(CONTAINER_PREFIX) :]
    if not reference:
        raise InvalidArgumentError("invalid container format container:<name|id>")
    return reference


def check_mode(mode: str, request: NetworkRequest) -> None:
    """Refuse combinations that contradict each other.

    Raises:
        InvalidArgumentError: with Docker's text.

    """
    if mode == "host" and request.has_links:
        raise InvalidArgumentError(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if joined_container(mode) is None:
        return
    conflicts = {
        "hostname and the network mode": request.has_hostname,
        "container type network can't be used with links. "
        "This would result in undefined behavior": request.has_links,
        "dns and the network mode": request.has_dns,
        "custom host-to-IP mapping and the network mode": request.has_extra_hosts,
        "mac-address and the network mode": request.has_mac,
        "port publishing and the container type network mode": request.publishes_ports,
        "port exposing and the container type network mode": request.exposes_ports,
    }
    for conflict, is_asked in conflicts.items():
        if is_asked:
            raise InvalidArgumentError(f"conflicting options: {conflict}")


def parse_mac(text: str) -> str:
    """Return a hardware address in lower case with colons.

    Raises:
        InvalidArgumentError: malformed, multicast, or all zero.

    """
    if not _MAC.fullmatch(text):
        raise InvalidArgumentError(f"invalid MAC address: {text[:64]!r}")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or not int(mac.replace(":", ""), 16):
        raise InvalidArgumentError(f"invalid MAC address: {mac} is not of one interface")
    return mac
