"""The network room's values as the Docker API shows them.

Spec: Docker Engine API 1.51, definition Network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cais.network.bridge import Bridge
from cais.network.endpoint import Endpoint, NetworkId

DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


@dataclass(frozen=True, slots=True)
class PredefinedNetwork:
    """One of bridge, host and none. ``created`` is RFC 3339."""

    name: str
    id: NetworkId
    created: str


def network_document(
    network: PredefinedNetwork,
    bridge: Bridge | None,
    mtu: int,
    containers: Mapping[str, Endpoint],
    names: Callable[[str], str],
) -> dict[str, Any]:
    """Return the body of ``GET /networks/{id}``."""
    has_pool = network.name == "bridge" and bridge is not None
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": DRIVERS[network.name],
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": str(bridge.subnet), "Gateway": bridge.gateway}]
            if has_pool and bridge is not None
            else None,
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            container_id: _member(endpoint, names(container_id))
            for container_id, endpoint in containers.items()
            if endpoint.network_id == network.id
        },
        "Options": _bridge_options(bridge, mtu) if has_pool and bridge is not None else {},
        "Labels": {},
    }


def _member(endpoint: Endpoint, name: str) -> dict[str, str]:
    return {
        "Name": name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.address}/{endpoint.prefix_len}" if endpoint.address else "",
        "IPv6Address": "",
    }


def _bridge_options(bridge: Bridge, mtu: int) -> dict[str, str]:
    prefix = "com.docker.network"
    return {
        f"{prefix}.bridge.default_bridge": "true",
        f"{prefix}.bridge.enable_icc": "true",
        f"{prefix}.bridge.enable_ip_masquerade": "true",
        f"{prefix}.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104 - what clients look for
        f"{prefix}.bridge.name": bridge.name,
        f"{prefix}.driver.mtu": str(mtu),
    }
