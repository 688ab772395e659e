"""The Engine API bodies that describe a container, typed; also the form they are stored in.

Attribute names are the API's in snake case; ``bodies`` decodes and encodes them.

Spec: docker-engine-api v1.51: ContainerConfig, HostConfig, NetworkingConfig, and the bodies of
/containers/create, /containers/{id}/update and /containers/{id}/exec.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Uint64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Uint16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
Words = list[str] | None


class HealthConfig(Struct, frozen=True, rename="pascal"):
    """HEALTHCHECK; durations in nanoseconds, 0 meaning the default."""

    test: Words = None
    interval: Int64 = 0
    timeout: Int64 = 0
    start_period: Int64 = 0
    start_interval: Int64 = 0
    retries: Int64 = 0


class ContainerConfig(Struct, frozen=True, rename="pascal"):
    """What does not depend on the host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Words = None
    cmd: Words = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: Words = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: Words = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: Int64 | None = None
    shell: Words = None


class WeightDevice(Struct, frozen=True, rename="pascal"):
    """A block device's share of I/O."""

    path: str = ""
    weight: Uint16 = 0


class ThrottleDevice(Struct, frozen=True, rename="pascal"):
    """A block device's limit, in bytes or operations a second."""

    path: str = ""
    rate: Uint64 = 0


class DeviceMapping(Struct, frozen=True, rename="pascal"):
    """A host device made available; permissions as in ``rwm``."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Struct, frozen=True, rename="pascal"):
    """Devices asked for by capability (``--gpus``)."""

    driver: str = ""
    count: Int64 = 0
    device_ids: Words = field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Struct, frozen=True, rename="pascal"):
    """A resource limit of setrlimit(2), name without RLIMIT_; -1 is no limit."""

    name: str = ""
    hard: Int64 = 0
    soft: Int64 = 0


class Resources(Struct, frozen=True, rename="pascal"):
    """Limits; 0, None and "" leave the host's default."""

    cpu_shares: Int64 = 0
    memory: Int64 = 0
    nano_cpus: Int64 = 0
    cgroup_parent: str = ""
    blkio_weight: Uint16 = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(
        name="BlkioDeviceReadIOps", default=None
    )
    blkio_device_write_iops: list[ThrottleDevice] | None = field(
        name="BlkioDeviceWriteIOps", default=None
    )
    cpu_period: Int64 = 0
    cpu_quota: Int64 = 0
    cpu_realtime_period: Int64 = 0
    cpu_realtime_runtime: Int64 = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: Words = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: Int64 = 0
    kernel_memory_tcp: Int64 = field(name="KernelMemoryTCP", default=0)
    memory_reservation: Int64 = 0
    memory_swap: Int64 = 0
    memory_swappiness: Int64 | None = None
    oom_kill_disable: bool | None = None
    pids_limit: Int64 | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: Int64 = 0
    cpu_percent: Int64 = 0
    io_maximum_iops: Uint64 = field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: Uint64 = field(name="IOMaximumBandwidth", default=0)


class LogConfig(Struct, frozen=True, rename="pascal"):
    """A log driver and its options; an empty type is the daemon's default."""

    type: str = ""
    config: dict[str, str] | None = None


class PortBinding(Struct, frozen=True, rename="pascal"):
    """A port of the host."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Struct, frozen=True, rename="pascal"):
    """``no``, ``always``, ``unless-stopped`` or ``on-failure``; "" is ``no``."""

    name: str = ""
    maximum_retry_count: Int64 = 0


class BindOptions(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Of a ``bind`` mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeDriverConfig(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """The driver a ``volume`` mount wants for a new volume."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Of a ``volume`` mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: VolumeDriverConfig | None = None
    subpath: str = ""


class ImageOptions(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Of an ``image`` mount."""

    subpath: str = ""


class TmpfsOptions(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Of a ``tmpfs`` mount; the mode is a number, not octal text."""

    size_bytes: Int64 = 0
    mode: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    options: list[list[str]] | None = None


class Mount(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """One ``--mount``."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(Resources, frozen=True, rename="pascal"):
    """What depends on the host."""

    binds: Words = None
    container_id_file: str = field(name="ContainerIDFile", default="")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Words = None
    mounts: list[Mount] | None = None
    console_size: tuple[Uint64, Uint64] = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: Words = None
    cap_drop: Words = None
    cgroupns_mode: str = ""
    dns: Words = None
    dns_options: Words = None
    dns_search: Words = None
    extra_hosts: Words = None
    group_add: Words = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: Words = None
    oom_score_adj: Int64 = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: Words = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: Int64 = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: Words = None
    readonly_paths: Words = None
    init: bool | None = None


class EndpointIpamConfig(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Addresses asked for."""

    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: Words = field(name="LinkLocalIPs", default=None)


class EndpointSettings(Struct, frozen=True, rename="pascal"):
    """A container's place in one network; what the engine fills in is ignored in a request."""

    ipam_config: EndpointIpamConfig | None = field(name="IPAMConfig", default=None)
    links: Words = None
    aliases: Words = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: Int64 = 0
    network_id: str = field(name="NetworkID", default="")
    dns_names: Words = field(name="DNSNames", default=None)


class NetworkingConfig(Struct, frozen=True, rename="pascal"):
    """Networks to join, by name or id."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateBody(Struct, frozen=True):
    """The body of ``POST /containers/create``, its three parts apart."""

    config: ContainerConfig
    host_config: HostConfig
    networking_config: NetworkingConfig


class UpdateBody(Resources, frozen=True, rename="pascal"):
    """The body of ``POST /containers/{id}/update``; what is zero or None stays as it is."""

    restart_policy: RestartPolicy | None = None


class ExecBody(Struct, frozen=True, rename="pascal"):
    """The body of ``POST /containers/{id}/exec``."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[Uint64, Uint64] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: Words = None
    working_dir: str = ""
    cmd: Words = None
