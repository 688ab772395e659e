"""What the daemon was told by its command line and configuration file, checked.

See ``daemon_flags`` for how both are read.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cais.api import daemon_flags
from cais.api.daemon_flags import InvalidFlagError, invalid_value
from cais.api.listeners import TcpAddress, UnixAddress, parse_host
from cais.api.registry_options import registry_options
from cais.api.runtime_options import check_default, parse_runtimes
from cais.errors import CaisError
from cais.linux.cgroups import expand_slice
from cais.spec.units import from_human_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.registry.options import RegistryOptions

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NO_BRIDGE = "none"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the daemon's certificate, its key and the clients' authority are."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """The checked options of one daemon."""

    hosts: tuple[UnixAddress | TcpAddress, ...]
    data_root: Path
    exec_root: Path
    pidfile: Path
    log_level: int
    debug: bool
    group: str
    cgroup_driver: str
    cgroup_parent: str
    storage_driver: str
    bridge_name: str
    bridge_address: str
    labels: tuple[str, ...]
    log_max_size_bytes: int
    log_max_files: int
    shutdown_timeout_s: int
    registries: RegistryOptions
    runtimes: Mapping[str, tuple[str, ...]]
    default_runtime: str
    experimental: bool
    userns_remap: str
    """As given; the accounts it names are looked up by ``engine.remapped_root``."""

    tls: TlsFiles | None


def load_options(flags: daemon_flags.Values) -> DaemonOptions:
    """Join the command line with the configuration file and check the values.

    Raises:
        InvalidFlagError: as dockerd says it.

    """
    path = Path(flags.get("config-file", daemon_flags.DEFAULT_CONFIG_FILE))
    file = daemon_flags.load_config_file(path, must_exist="config-file" in flags)
    return _checked(daemon_flags.merge(flags, file))


def _checked(values: daemon_flags.Values) -> DaemonOptions:
    exec_root = _absolute(values, "exec-root", "/run/cais")
    if values.get("log-driver", "json-file") != "json-file":
        raise InvalidFlagError(
            f"logger: log driver '{values['log-driver']}' is not supported by this version of cais"
        )
    max_size, max_files = _log_limits(values.get("log-opt", []))
    debug = bool(values.get("debug"))
    driver = _cgroup_driver(values.get("exec-opt", []))
    runtimes = parse_runtimes(values.get("add-runtime", []))
    return DaemonOptions(
        hosts=_hosts(values, exec_root),
        data_root=_absolute(values, "data-root", "/var/lib/cais"),
        exec_root=exec_root,
        pidfile=_absolute(values, "pidfile", str(exec_root / "caisd.pid")),
        log_level=logging.DEBUG if debug else _log_level(values.get("log-level", "info")),
        debug=debug,
        group=values.get("group", ""),
        cgroup_driver=driver,
        cgroup_parent=_cgroup_parent(values.get("cgroup-parent", ""), driver),
        storage_driver=values.get("storage-driver", ""),
        bridge_name=_bridge_name(values),
        bridge_address=_bridge_address(values.get("bip", "")),
        labels=_labels(values.get("label", [])),
        log_max_size_bytes=max_size,
        log_max_files=max_files,
        shutdown_timeout_s=max(0, values.get("shutdown-timeout", 15)),
        registries=registry_options(values, os.environ),
        runtimes=runtimes,
        default_runtime=check_default(values.get("default-runtime", ""), runtimes),
        experimental=bool(values.get("experimental")),
        userns_remap=values.get("userns-remap", ""),
        tls=_tls(values),
    )


def _hosts(values: daemon_flags.Values, exec_root: Path) -> tuple[UnixAddress | TcpAddress, ...]:
    texts: Sequence[str] = values.get("host") or [f"unix://{exec_root}/caisd.sock"]
    hosts = []
    for text in texts:
        try:
            hosts.append(parse_host(text))
        except CaisError as exc:
            raise invalid_value("host", text, str(exc)) from exc
    return tuple(hosts)


def _absolute(values: Mapping[str, str], name: str, default: str) -> Path:
    text = values.get(name, default)
    if not text or "\x00" in text:
        raise invalid_value(name, text, "not a path")
    return Path(os.path.abspath(text))  # noqa: PTH100 - normalises without following links


def _log_level(text: str) -> int:
    if text not in _LEVELS:
        raise InvalidFlagError(f'invalid logging level: "{text}"')
    return _LEVELS[text]


def _cgroup_driver(texts: Sequence[str]) -> str:
    """Read ``native.cgroupdriver``, the one execution option; the last counts."""
    driver = "cgroupfs"
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name.strip().lower() != "native.cgroupdriver":
            raise InvalidFlagError(f"invalid exec-opt: {text}")
        if value not in ("", "cgroupfs", "systemd"):
            raise InvalidFlagError(f"native.cgroupdriver option {value} not supported")
        driver = value or "cgroupfs"
    return driver


def _cgroup_parent(text: str, driver: str) -> str:
    """Return an absolute, clean path below the hierarchies' roots; for systemd, a slice."""
    if driver == "systemd":
        return _slice(text or "system.slice")
    text = text or "/cais"
    path = os.path.normpath("/" + text.strip())
    path = "/" + path.lstrip("/")
    if path == "/" or ".." in text.split("/") or text.endswith(".slice"):
        raise invalid_value("cgroup-parent", text, "not the path of a control group")
    return path


def _slice(text: str) -> str:
    try:
        expand_slice(text)
    except CaisError as exc:
        raise InvalidFlagError(
            'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'
        ) from exc
    return text


def _bridge_name(values: Mapping[str, str]) -> str:
    text = values.get("bridge", "")
    if text and "bip" in values:
        raise InvalidFlagError("You specified -b & --bip, mutually exclusive options")
    if text == _NO_BRIDGE:
        raise InvalidFlagError("--bridge=none is not supported by this version of cais")
    if (
        len(text) > 15
        or text in {".", ".."}
        or any(not letter.isprintable() or letter in "/ " for letter in text)
    ):
        raise invalid_value("bridge", text, "not the name of a network interface")
    return text


def _bridge_address(text: str) -> str:
    if not text:
        return ""
    try:
        interface = ipaddress.IPv4Interface(text)
    except ValueError as exc:
        raise invalid_value("bip", text, f"invalid CIDR address: {text}") from exc
    if "/" not in text or interface.network.prefixlen > 30:
        raise invalid_value("bip", text, f"invalid CIDR address: {text}")
    return str(interface)


def _labels(texts: Sequence[str]) -> tuple[str, ...]:
    for text in texts:
        if "=" not in text:
            raise invalid_value("label", text, f"bad attribute format: {text}")
    return tuple(texts)


def _log_limits(texts: Sequence[str]) -> tuple[int, int]:
    """Read max-size and max-file of the json-file driver; bounded by default."""
    max_size, max_files = 10 * 1024 * 1024, 5
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise invalid_value(
                "log-opt", text, f"invalid key/value pair format in log options: {text}"
            )
        if name == "max-size":
            max_size = _size(text, value)
        elif name == "max-file" and value.isdigit() and int(value) >= 1:
            max_files = int(value)
        elif name == "max-file":
            raise invalid_value("log-opt", text, "'max-file' cannot be less than 1")
        else:
            raise invalid_value(
                "log-opt", text, f"unknown log opt '{name}' for json-file log driver"
            )
    return max_size, max_files


def _size(text: str, value: str) -> int:
    try:
        return from_human_size(value)
    except CaisError as exc:
        raise invalid_value("log-opt", text, str(exc)) from exc


def _tls(values: daemon_flags.Values) -> TlsFiles | None:
    names = ("tlscert", "tlskey", "tlscacert")
    if not values.get("tlsverify"):
        if values.get("tls") or any(name in values for name in names):
            raise InvalidFlagError(
                "TLS without verification of the clients is not supported: use --tlsverify"
            )
        return None
    for name in names:
        if name not in values:
            raise InvalidFlagError(f"--tlsverify needs --{name}")
    certificate, key, authority = (Path(values[name]) for name in names)
    return TlsFiles(certificate, key, authority)
