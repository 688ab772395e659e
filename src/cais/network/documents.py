"""The network room's values as the Docker API shows them.

Spec: Docker Engine API 1.51, definitions Network, NetworkSettings, EndpointSettings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cais.network.bridge import Bridge
from cais.network.endpoint import Attachment, Endpoint, NetworkId

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


def settings_document(attachment: Attachment | None, network_name: str) -> dict[str, Any]:
    """Return ``NetworkSettings`` of container inspect.

    Args:
        attachment: None when the container does not run; then everything is empty.
        network_name: the network of the container's mode, empty for ``container:<id>``.

    """
    endpoint = attachment.endpoint if attachment else None
    networks = {endpoint.network_name: endpoint_document(endpoint)} if endpoint else {}
    if attachment is None and network_name:
        networks = {network_name: endpoint_document(None)}
    on_bridge = endpoint if endpoint and endpoint.network_name == "bridge" else None
    return {
        "Bridge": "",
        "SandboxID": attachment.sandbox_id if attachment else "",
        "SandboxKey": _sandbox_key(attachment),
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": on_bridge.endpoint_id if on_bridge else "",
        "Gateway": on_bridge.gateway if on_bridge else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": on_bridge.address if on_bridge else "",
        "IPPrefixLen": on_bridge.prefix_len if on_bridge else 0,
        "IPv6Gateway": "",
        "MacAddress": on_bridge.mac if on_bridge else "",
        "Networks": networks,
    }


def endpoint_document(endpoint: Endpoint | None) -> dict[str, Any]:
    """Return one entry of ``Networks``: EndpointSettings."""
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": endpoint.mac if endpoint else "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": endpoint.network_id if endpoint else "",
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix_len if endpoint else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _sandbox_key(attachment: Attachment | None) -> str:
    if attachment is None or not attachment.sandbox_id:
        return ""
    return attachment.netns_path or "/proc/1/ns/net"
