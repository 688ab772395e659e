"""Bundles: from a record to the files the shim starts a container or an exec from.

Spec: docs/architecture.md 3.2.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from cais.engine import shared_memory
from cais.engine.init_program import ensure_init_program
from cais.engine.oci import Target, build_document, exec_document
from cais.engine.oci.filters import prepare as prepare_filter
from cais.engine.oci.modes import is_private_network, other_container
from cais.engine.oci.mounts import DEFAULT_SHM_BYTES
from cais.engine.oci.security import load_default_apparmor
from cais.errors import ConflictError, InvalidArgumentError, NotFoundError, UnsupportedError
from cais.linux.writing import write_all
from cais.network.files import NameSettings, write_files
from cais.shim.values import LogTarget, OciRuntime
from cais.spec.units import ram_bytes
from cais.volumes.mounts import make_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.engine.core import Core
    from cais.engine.oci import Host
    from cais.engine.records import ContainerRecord
    from cais.engine.table import Container
    from cais.network.endpoint import Attachment
    from cais.spec.container import ContainerConfig, EndpointSettings, ExecBody, LogConfig

LOG_DRIVERS = ("", "json-file", "none")
_LOG_OPTIONS = frozenset(
    (
        *("max-size", "max-file", "labels", "labels-regex", "env", "env-regex", "tag"),
        *("mode", "max-buffer-size", "compress"),
    )
)
_encode = msgspec.json.Encoder().encode


class Bundle(NamedTuple):
    """A written bundle's directory, and what it was written for; None: our own runtime."""

    path: str
    runtime: OciRuntime | None


class BundleWriter:
    """Writes bundles. Everything but ``log_target`` and ``console_size`` blocks."""

    def __init__(self, core: Core, host: Host) -> None:
        self._core = core
        self._host = host
        self._filters = core.paths.exec_root / "seccomp"

    def prepare(self) -> None:
        """Make what every bundle needs, so that the first container does not wait for it."""
        prepare_filter(self._host, self._filters)
        if self._host.apparmor:
            load_default_apparmor()

    def attach_network(
        self, record: ContainerRecord, joined: Attachment | None, users: str
    ) -> Attachment:
        """Give the container its network; runs in the network room's thread.

        Raises as ``NetworkManager.attach``, which says what ``joined`` and ``users`` are.
        """
        mode = record.network_mode
        if record.config.network_disabled and is_private_network(mode):
            mode = "none"
        asked = _asked_endpoint(record)
        return self._core.network.attach(
            record.id,
            mode,
            mac=record.config.mac_address or (asked.mac_address if asked else "") or None,
            address=asked.ipam_config.ipv4_address if asked and asked.ipam_config else None,
            joined=joined,
            users=users,
        )

    def write(self, record: ContainerRecord) -> Bundle:
        """Write the bundle of a container about to start.

        Raises:
            ConflictError: a container it shares something with does not run.
            InvalidArgumentError: what can only be seen now, such as a device that is gone.
            LaunchError: the program of its runtime is gone.

        """
        runtime = self._core.runtimes.find(record.host_config.runtime)
        bundle = self._core.paths.bundle(record.id)
        root = record.identities.root if record.identities else None
        make_sources(record.mounts, root)
        os.makedirs(bundle, mode=0o700, exist_ok=True)  # noqa: PTH103 - hot path
        target = Target(
            id=record.id,
            host=self._host,
            rootfs=self._core.snapshots.mounts(record.id, ephemeral=record.auto_remove),
            seccomp_dir=self._filters,
            mounts=record.mounts,
            files=self._files(record),
            namespaces=self._namespaces(record),
            shm_path=self._shm_path(record),
            root=root,
            cgroup_parent=self._core.config.cgroup_parent,
            inlined=runtime is not None,
            init_program=self._init_program(record) if runtime is not None else None,
        )
        built = build_document(self._config(record), record.host_config, target)
        sysctls = record.attachment.sysctls if record.attachment else {}
        if sysctls:
            linux = built.config["linux"]
            linux["sysctl"] = {**sysctls, **linux.get("sysctl", {})}
        _write(f"{bundle}/config.json", _encode(built.config))
        _write(f"{bundle}/cais.json", _encode(built.cais))
        return Bundle(bundle, runtime)

    def _init_program(self, record: ContainerRecord) -> str | None:
        return ensure_init_program(self._core.paths) if record.host_config.init else None

    def _config(self, record: ContainerRecord) -> ContainerConfig:
        """Return the configuration with the host name of whose network it shares."""
        owner = self._core.table.find(record.hosts_owner)
        if owner is None:
            return record.config
        theirs = owner.record.config
        return replace(record.config, hostname=theirs.hostname, domainname=theirs.domainname)

    def check_exec(self, record: ContainerRecord, body: ExecBody) -> None:
        """Refuse an exec that cannot be. InvalidArgumentError."""
        exec_document(body, record.config, record.host_config, self._host)

    def write_exec(self, record: ContainerRecord, exec_id: str, body: ExecBody) -> str:
        """Write the document of an exec; return its path."""
        document = exec_document(body, record.config, record.host_config, self._host)
        path = f"{self._core.paths.bundle(record.id)}/exec-{exec_id}.json"
        _write(path, _encode(document))
        return path

    def forget_exec(self, container_id: str, exec_id: str) -> None:
        """Delete the document of an exec that was started."""
        with contextlib.suppress(OSError):
            os.unlink(f"{self._core.paths.bundle(container_id)}/exec-{exec_id}.json")  # noqa: PTH108

    def log_target(self, record: ContainerRecord) -> LogTarget | None:
        """Return where and how the container is logged."""
        config = record.host_config.log_config
        if config.type == "none":
            return None
        max_size, max_file = log_limits(
            config, self._core.config.log_max_size_bytes, self._core.config.log_max_files
        )
        return LogTarget(
            path=self._core.paths.log(record.id),
            max_size=max_size,
            max_file=max_file,
            attrs=log_attributes(record),
        )

    @staticmethod
    def console_size(record: ContainerRecord) -> tuple[int, int] | None:
        """Return rows and columns of the terminal when it starts."""
        size = record.host_config.console_size
        return size if record.tty and all(size) else None

    def _files(self, record: ContainerRecord) -> dict[str, str]:
        owner = record.hosts_owner or record.id
        directory = Path(self._core.paths.bundle(owner))
        if owner == record.id and record.attachment is not None:
            config, host_config = record.config, record.host_config
            write_files(
                directory,
                NameSettings(
                    hostname=config.hostname or record.id[:12],
                    domainname=config.domainname,
                    extra_hosts=host_config.extra_hosts or (),
                    dns=host_config.dns or (),
                    dns_search=host_config.dns_search or (),
                    dns_options=host_config.dns_options or (),
                ),
                record.attachment,
                host_gateway=self._core.network.host_gateway(),
            )
        return {
            f"/etc/{name}": f"{directory}/{name}" for name in ("hosts", "hostname", "resolv.conf")
        }

    def _namespaces(self, record: ContainerRecord) -> dict[str, str]:
        found = {}
        if record.attachment is not None and record.attachment.netns_path:
            found["network"] = record.attachment.netns_path
            if record.attachment.userns_path:
                found["user"] = record.attachment.userns_path
        for kind, mode in (
            ("ipc", record.host_config.ipc_mode),
            ("pid", record.host_config.pid_mode),
        ):
            if (ref := other_container(mode)) is not None:
                found[kind] = f"/proc/{self._running(ref, kind).record.state.pid}/ns/{kind}"
        return found

    def _shm_path(self, record: ContainerRecord) -> str | None:
        """Return the directory behind a /dev/shm that several containers share."""
        mode = record.host_config.ipc_mode
        owner = record.id
        if (ref := other_container(mode)) is not None:
            donor = self._running(ref, "IPC")
            if donor.record.host_config.ipc_mode != "shareable":
                raise InvalidArgumentError(
                    f"cannot join IPC of container {ref}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)"
                )
            owner = donor.id
        elif mode != "shareable":
            return None
        if owner != record.id:
            return shared_memory.shared_path(self._core.paths.bundle(owner))
        size_bytes = record.host_config.shm_size or DEFAULT_SHM_BYTES
        root = record.identities.root if record.identities else (0, 0)
        return shared_memory.provide(self._core.paths.bundle(owner), size_bytes, root)

    def _running(self, ref: str, kind: str) -> Container:
        try:
            other = self._core.table.resolve(ref)
        except NotFoundError as exc:
            raise ConflictError(f"cannot join {kind} of container {ref}: {exc}") from exc
        if not other.record.state.running or not other.record.state.pid:
            raise ConflictError(f"cannot join {kind} of a non running container: {other.id}")
        return other


def check_log_config(config: LogConfig) -> None:
    """Refuse log drivers and options this version does not have.

    Raises:
        InvalidArgumentError: Docker's texts.
        UnsupportedError: compressing rotated files.

    """
    if config.type not in LOG_DRIVERS:
        raise InvalidArgumentError(f"logger: no log driver named '{config.type}' is registered")
    for name in config.config or {}:
        if config.type != "none" and name not in _LOG_OPTIONS:
            raise InvalidArgumentError(f"unknown log opt '{name}' for json-file log driver")
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile((config.config or {}).get(name, ""))
        except re.error as exc:
            raise InvalidArgumentError(f"invalid log opt {name}: {exc}") from exc
    mode = (config.config or {}).get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgumentError(f"logger: logging mode not supported: {mode}")
    size, files = log_limits(config, None, 1)
    if config.type != "none" and _parse_flag(config.config or {}, "compress"):
        if size is None or files < 2:
            raise InvalidArgumentError(
                "compress cannot be true when max-file is less than 2 or max-size is not set"
            )
        raise UnsupportedError("log opt compress=true is not supported by this version")


def _parse_flag(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "false")
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidArgumentError(f'strconv.ParseBool: parsing "{text[:64]}": invalid syntax')


def log_limits(
    config: LogConfig, default_size: int | None, default_files: int
) -> tuple[int | None, int]:
    """Return the size in bytes at which the log is rotated, and how many files are kept.

    Raises:
        InvalidArgumentError: malformed ``max-size`` or ``max-file``.

    """
    options = config.config or {}
    size: int | None = default_size
    if "max-size" in options:
        size = None if options["max-size"] == "-1" else ram_bytes(options["max-size"])
        if size is not None and size <= 0:
            raise InvalidArgumentError(f"max-size must be a positive number: {options['max-size']}")
    files = default_files if "max-size" not in options else 1
    if "max-file" in options:
        text = options["max-file"]
        if not text.isdigit():
            raise InvalidArgumentError(f'strconv.Atoi: parsing "{text}": invalid syntax')
        files = int(text)
        if files < 1:
            raise InvalidArgumentError("max-file cannot be less than 1")
    return size, files


def log_attributes(record: ContainerRecord) -> dict[str, str]:
    """Return the labels and variables every log line repeats, as the log options choose."""
    options = record.host_config.log_config.config or {}
    found: dict[str, str] = {}
    variables = dict(entry.partition("=")[::2] for entry in record.config.env or ())
    for kind, values in (("labels", record.labels), ("env", variables)):
        wanted = set(options.get(kind, "").split(","))
        pattern = options.get(f"{kind}-regex")
        found |= {
            name: value
            for name, value in values.items()
            if name in wanted or (pattern and re.search(pattern, name))
        }
    if tag := options.get("tag"):
        found["tag"] = tag
    return found


def _asked_endpoint(record: ContainerRecord) -> EndpointSettings | None:
    """Return what was asked of the container's network; clients call the bridge ``default`` too."""
    endpoints = (record.networking.endpoints_config if record.networking else None) or {}
    asked = endpoints.get(record.network_mode)
    return asked or endpoints.get("default") if record.network_mode == "bridge" else asked


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)
