"""Values the network room hands to the engine: ready namespaces, endpoints, attachments.

All are frozen, hold plain JSON types and survive a round trip through the engine's database.
"""

from dataclasses import dataclass, field
from typing import NewType

NetworkId = NewType("NetworkId", str)
EndpointId = NewType("EndpointId", str)
SandboxId = NewType("SandboxId", str)


@dataclass(frozen=True, slots=True)
class ReadyNamespace:
    """A network namespace the shim made, pinned at ``path``.

    ``NetworkManager.offer`` takes over both descriptors and the pin.

    Attributes:
        path: where the namespace is bind-mounted, a file directly under ``<exec-root>/netns``.
        netns_fd: the namespace itself.
        netlink_fd: a NETLINK_ROUTE socket created inside the namespace.
        userns_path: where the user namespace it belongs to is bind-mounted, beside it; None: it
            belongs to the host's.
        users: which containers it is for: those whose user namespace is described so.

    """

    path: str
    netns_fd: int
    netlink_fd: int
    userns_path: str | None = None
    users: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on one network.

    On ``host`` and ``none`` there is no interface: everything after ``endpoint_id`` is empty.
    ``address`` and ``gateway`` are dotted decimal, ``mac`` is lower case with colons;
    ``host_interface`` is the name of the bridge's end.
    """

    network_id: NetworkId
    network_name: str
    endpoint_id: EndpointId
    interface: str = ""
    host_interface: str = ""
    address: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a container's network is, from attach to release.

    Attributes:
        mode: ``bridge``, ``host``, ``none`` or ``container:<id>``, as resolved.
        netns_path: what the OCI document's network namespace points at; None = the host's.
        sandbox_id: 64 hex digits, Docker's SandboxID; empty for ``container:<id>``.
        endpoint: None for ``container:<id>``, which has no place of its own.
        sysctls: to be set in the namespace under the user's own (``linux.sysctl``).
        userns_path: what the OCI document's user namespace points at; None = the host's.

    """

    mode: str
    netns_path: str | None
    sandbox_id: SandboxId
    endpoint: Endpoint | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    userns_path: str | None = None

    @property
    def network_id(self) -> NetworkId | None:
        """The network the endpoint is on; None for ``container:<id>``."""
        return self.endpoint.network_id if self.endpoint else None
