"""Containers as the API shows them: the inspect document and what it has in common with lists.

Spec: docker-engine-api v1.51, ContainerInspectResponse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.clock import rfc3339
from cais.engine.oci.security import parse_security_options, wanted_apparmor
from cais.snapshots.snapshotter import STACKING_DRIVERS
from cais.spec.bodies import to_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.engine.oci import Host
    from cais.engine.paths import Paths
    from cais.engine.records import ContainerRecord, HealthRecord, StateRecord
    from cais.network.endpoint import Endpoint
    from cais.snapshots.snapshotter import Mount


def inspect_document(
    record: ContainerRecord,
    *,
    host: Host,
    paths: Paths,
    storage_driver: str,
    snapshot_mounts: Sequence[Mount],
    exec_ids: Sequence[str],
) -> dict[str, Any]:
    """Return the document of ``GET /containers/{id}/json`` without the sizes."""
    files_of = record.hosts_owner or record.id
    has_started = bool(record.state.started_at_ns)
    return {
        "Id": record.id,
        "Created": rfc3339(record.created_at_ns),
        "Path": record.path,
        "Args": record.args,
        "State": state_document(record.state),
        "Image": record.image_id,
        "ResolvConfPath": paths.container_file(files_of, "resolv.conf") if has_started else "",
        "HostnamePath": paths.container_file(files_of, "hostname") if has_started else "",
        "HostsPath": paths.container_file(files_of, "hosts") if has_started else "",
        "LogPath": paths.log(record.id) if has_started and has_log_file(record) else "",
        "Name": record.name,
        "RestartCount": record.restart_count,
        "Driver": storage_driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": _apparmor_profile(record, host) if has_started else "",
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": to_document(record.host_config),
        "GraphDriver": graph_driver(record.id, storage_driver, snapshot_mounts),
        "Mounts": [mount.to_docker() for mount in record.mounts if mount.is_listed],
        "Config": to_document(record.config),
        "NetworkSettings": network_settings(record),
    }


def _apparmor_profile(record: ContainerRecord, host: Host) -> str:
    options = parse_security_options(record.host_config.security_opt or ())
    return wanted_apparmor(options, host, privileged=record.host_config.privileged)


def state_document(state: StateRecord) -> dict[str, Any]:
    """Return ``State``."""
    document: dict[str, Any] = {
        "Status": state.status,
        "Running": state.running,
        "Paused": state.paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at_ns),
        "FinishedAt": rfc3339(state.finished_at_ns),
    }
    if state.health is not None:
        document["Health"] = health_document(state.health)
    return document


def health_document(health: HealthRecord) -> dict[str, Any]:
    """Return ``State.Health``."""
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": rfc3339(probe.start_ns),
                "End": rfc3339(probe.end_ns),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.log
        ],
    }


def graph_driver(container_id: str, driver: str, mounts: Sequence[Mount]) -> dict[str, Any]:
    """Return ``GraphDriver``: the directories of a driver that stacks any."""
    if driver not in STACKING_DRIVERS:
        return {"Name": driver, "Data": None}
    options = dict(
        option.split("=", 1) for mount in mounts for option in mount.options if "=" in option
    )
    data = {
        name: options[key]
        for name, key in (
            ("LowerDir", "lowerdir"),
            ("UpperDir", "upperdir"),
            ("WorkDir", "workdir"),
        )
        if key in options
    }
    return {"Name": driver, "Data": {"ID": container_id, **data}}


def has_log_file(record: ContainerRecord) -> bool:
    """Whether the container's output is kept in a json-file log."""
    return record.host_config.log_config.type in ("", "json-file", "local")


def network_settings(record: ContainerRecord) -> dict[str, Any]:
    """Return ``NetworkSettings``, with the deprecated members for the default bridge."""
    attachment = record.attachment
    endpoint = attachment.endpoint if attachment else None
    sandbox = attachment.sandbox_id if attachment else ""
    key = attachment.netns_path or "" if attachment and sandbox else ""
    return {
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": key,
        "Ports": dict.fromkeys(record.config.exposed_ports or ())
        if endpoint and endpoint.address
        else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix_len if endpoint else 0,
        "IPv6Gateway": "",
        "MacAddress": endpoint.mac if endpoint else "",
        "Networks": networks_document(record),
    }


def networks_document(record: ContainerRecord) -> dict[str, Any]:
    """Return ``NetworkSettings.Networks``: the one network, empty while nothing runs."""
    if record.network_mode.startswith("container:"):
        return {}
    name = "bridge" if record.network_mode == "default" else record.network_mode
    attachment = record.attachment
    endpoint = attachment.endpoint if attachment else None
    document = _endpoint_document(endpoint)
    document["NetworkID"] = record.network_id
    asked = (record.networking.endpoints_config or {}).get(name) if record.networking else None
    if asked is not None:
        document["Aliases"] = asked.aliases
        document["DriverOpts"] = asked.driver_opts
    return {name: document}


def _endpoint_document(endpoint: Endpoint | None) -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": endpoint.mac if endpoint else "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": "",
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix_len if endpoint else 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }
