"""What the daemon does to a HostConfig before it stores it: check, fill in, discard with a warning.

Texts are Docker's, word for word: people search for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cais.engine.oci import capabilities, limits
from cais.engine.oci.devices import parse_rule
from cais.engine.oci.modes import check_modes, is_private_network, other_container
from cais.engine.oci.mounts import DEFAULT_SHM_BYTES
from cais.engine.oci.namespaces import check_sysctls
from cais.engine.oci.security import parse_security_options
from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux.cgroups import clean_path

if TYPE_CHECKING:
    from cais.engine.oci.host import Host
    from cais.spec.container import ContainerConfig, HostConfig, UpdateBody

_UNDEFINED = "be used with links. This would result in undefined behavior"
_RESTART_POLICIES = ("", "no", "always", "on-failure", "unless-stopped")


def adapt_host_config(
    config: ContainerConfig, host_config: HostConfig, host: Host
) -> tuple[HostConfig, list[str]]:
    """Return the HostConfig to store and what to warn the user of.

    Raises:
        InvalidArgumentError: Docker's text for whatever cannot be.
        UnsupportedError: an option this version does not have.

    """
    host_config = _fill_in(host_config, host)
    _check_network(config, host_config)
    _check_options(host_config, host)
    host_config, warnings = limits.adapt(host_config, host)
    return host_config, [*warnings, *_warnings(host_config, host)]


def adapt_update(update: UpdateBody, host: Host) -> tuple[UpdateBody, list[str]]:
    """Check and adapt the limits of an update by the same rules.

    Raises:
        InvalidArgumentError: Docker's text for whatever cannot be.

    """
    if update.restart_policy is not None:
        check_restart_policy(update.restart_policy.name, update.restart_policy.maximum_retry_count)
    return limits.adapt(update, host, is_update=True)


def check_restart_policy(name: str, retries: int) -> None:
    """Refuse a policy that is none. InvalidArgumentError: Docker's texts."""
    if name not in _RESTART_POLICIES:
        raise InvalidArgumentError(
            f"invalid restart policy: unknown policy '{name[:64]}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if retries and name != "on-failure":
        raise InvalidArgumentError(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if retries < 0:
        raise InvalidArgumentError("invalid restart policy: maximum retry count cannot be negative")


def _fill_in(host_config: HostConfig, host: Host) -> HostConfig:
    cgroupns_mode = host_config.cgroupns_mode
    if not cgroupns_mode:
        cgroupns_mode = "private" if host.hierarchy.version == 2 else "host"
    network_mode = host_config.network_mode
    return replace(
        host_config,
        network_mode="bridge" if network_mode in ("", "default") else network_mode,
        ipc_mode=host_config.ipc_mode or "private",
        cgroupns_mode=cgroupns_mode,
        shm_size=host_config.shm_size or DEFAULT_SHM_BYTES,
        oom_kill_disable=bool(host_config.oom_kill_disable),
        security_opt=_with_label(host_config),
    )


def _with_label(host_config: HostConfig) -> list[str] | None:
    """Return SecurityOpt, saying that who sees the host's processes has no SELinux label."""
    given = host_config.security_opt
    if any(option.partition("=")[0] == "label" for option in given or ()):
        return given
    if host_config.privileged or "host" in (host_config.ipc_mode, host_config.pid_mode):
        return [*(given or ()), "label=disable"]
    return given


def _check_options(host_config: HostConfig, host: Host) -> None:
    check_modes(host_config)
    check_sysctls(host_config)
    parse_security_options(host_config.security_opt or ())
    capabilities.normalize(host_config.cap_add or (), host, "CapAdd")
    capabilities.normalize(host_config.cap_drop or (), host, "CapDrop")
    for rule in host_config.device_cgroup_rules or ():
        parse_rule(rule)
    if host_config.shm_size < 0:
        raise InvalidArgumentError("SHM size can not be less than 0")
    if not -1000 <= host_config.oom_score_adj <= 1000:
        raise InvalidArgumentError(
            f"Invalid value {host_config.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host_config.isolation not in ("", "default"):
        raise InvalidArgumentError(
            f"invalid isolation ({host_config.isolation[:64]}): linux only supports 'default'"
        )
    if host_config.cgroup_parent:
        clean_path(host_config.cgroup_parent)
    _check_restart(host_config)
    _check_annotations(host_config)
    if host_config.storage_opt:
        raise UnsupportedError("--storage-opt is not supported by the overlay snapshotter")


def _check_restart(host_config: HostConfig) -> None:
    policy = host_config.restart_policy
    check_restart_policy(policy.name, policy.maximum_retry_count)
    if host_config.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgumentError("can't create 'AutoRemove' container with restart policy")


def _check_annotations(host_config: HostConfig) -> None:
    if "" in (host_config.annotations or {}):
        raise InvalidArgumentError(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )


def _check_network(config: ContainerConfig, host_config: HostConfig) -> None:
    mode = host_config.network_mode
    if host_config.uts_mode == "host" and config.hostname:
        raise InvalidArgumentError("conflicting options: hostname and the UTS mode")
    if mode == "host" and host_config.links:
        raise InvalidArgumentError(f"conflicting options: host type networking can't {_UNDEFINED}")
    if other_container(mode) is not None:
        _check_shared_network(config, host_config)


def _check_shared_network(config: ContainerConfig, host_config: HostConfig) -> None:
    conflicts = (
        (config.hostname, "hostname and the network mode"),
        (host_config.links, f"container type network can't {_UNDEFINED}"),
        (host_config.dns, "dns and the network mode"),
        (host_config.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host_config.port_bindings or host_config.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    )
    for present, text in conflicts:
        if present:
            raise InvalidArgumentError(f"conflicting options: {text}")


def _warnings(host_config: HostConfig, host: Host) -> list[str]:
    warnings = []
    if host_config.network_mode == "host" and host_config.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    if host.kernel < (4, 6) and host_config.cgroupns_mode == "private":
        warnings.append(
            "Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded."
        )
    if is_private_network(host_config.network_mode) and host_config.network_mode != "none":
        warnings += _forwarding_warning()
    return warnings


def _forwarding_warning() -> list[str]:
    try:
        with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as switch:  # noqa: PTH123
            is_off = switch.read().strip() == "0"
    except OSError:
        return []
    return ["IPv4 forwarding is disabled. Networking will not work."] if is_off else []
