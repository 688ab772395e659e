"""Which namespaces a container has for itself, which it shares, and the sysctls of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cais.engine.oci.modes import is_private_network, other_container
from cais.errors import InvalidArgumentError
from cais.spec.runtime_schema import sysctl_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.spec.container import ContainerConfig, HostConfig

Document = dict[str, Any]
PROC_SYS = Path("/proc/sys")
_PING_GROUPS = "net.ipv4.ping_group_range"
# Docker's defaults: ping without CAP_NET_RAW, low ports without CAP_NET_BIND_SERVICE.
_NETWORK_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    _PING_GROUPS: "0 2147483647",
}


def build_namespaces(
    config: ContainerConfig, host_config: HostConfig, paths: Mapping[str, str]
) -> list[Document]:
    """Return ``linux.namespaces``.

    Args:
        config: a disabled network is a namespace with nothing in it.
        host_config: the modes, already checked.
        paths: where to enter namespaces that exist: ``network`` and ``user`` for those made ready
            or another container's, ``ipc`` and ``pid`` for another container's.

    Raises:
        InvalidArgumentError: a namespace is to be shared and ``paths`` does not say where.

    """
    modes = {
        "network": "host" if host_config.network_mode == "host" else "private",
        "uts": host_config.uts_mode,
        "pid": host_config.pid_mode,
        "ipc": host_config.ipc_mode,
        "cgroup": host_config.cgroupns_mode or "host",
    }
    if config.network_disabled and modes["network"] == "host":
        modes["network"] = "private"
    found: list[Document] = [{"type": "mount"}]
    if "user" in paths:
        found.append({"type": "user", "path": paths["user"]})
    for kind, mode in modes.items():
        if mode == "host":
            continue
        namespace: Document = {"type": kind}
        if kind in paths:
            namespace["path"] = paths[kind]
        elif (other := other_container(mode)) is not None:
            raise InvalidArgumentError(f"cannot join the {kind} namespace of {other}: not running")
        found.append(namespace)
    return found


def build_sysctls(host_config: HostConfig, *, is_remapped: bool = False) -> dict[str, str]:
    """Return ``linux.sysctl``: the defaults of an own network, and what was asked for.

    A user namespace has no group of the largest number: as with Docker, nobody is to ping then but
    who has CAP_NET_RAW.
    """
    found: dict[str, str] = {}
    if is_private_network(host_config.network_mode):
        found = {
            name: value
            for name, value in _NETWORK_SYSCTLS.items()
            if (PROC_SYS / name.replace(".", "/")).exists()
            and not (is_remapped and name == _PING_GROUPS)
        }
    return found | dict(host_config.sysctls or {})


def check_sysctls(host_config: HostConfig) -> None:
    """Refuse what is not the container's own, before anything is made (CVE-2022-0811).

    Raises:
        InvalidArgumentError: with the name, never with the value.

    """
    owned = {"network", "ipc", "uts"}
    if host_config.network_mode == "host":
        owned.discard("network")
    if host_config.ipc_mode == "host":
        owned.discard("ipc")
    if host_config.uts_mode == "host":
        owned.discard("uts")
    for name, value in (host_config.sysctls or {}).items():
        if why := sysctl_fault(name, owned):
            raise InvalidArgumentError(f"sysctl {name[:128]!r} is not allowed: it {why}")
        if "\n" in value or "\0" in value:
            raise InvalidArgumentError(f"sysctl {name!r} is not allowed: its value is malformed")
