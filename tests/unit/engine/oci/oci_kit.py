"""A host as the tests want it, and short ways to documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cais.engine.oci import Built, Host, Target, adapt_host_config, build_document
from cais.linux.cgroups import Hierarchy
from cais.linux.cgroups.features import Features
from cais.spec.container import ContainerConfig, HostConfig

ALL_CAPABILITIES = (1 << 41) - 1
NUMBERS = ("cpuset_cpus", "cpuset_mems")


def features(**changes: Any) -> Features:
    """Return a host that can limit everything, but for ``changes``."""
    found = Features()
    for name in Features.__slots__:
        setattr(found, name, "" if name in NUMBERS else name != "kernel_memory")
    found.cpuset_cpus, found.cpuset_mems = "0-1", "0"
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def host(version: int = 1, **changes: Any) -> Host:
    """Return a host with two processors and every capability."""
    limits = {name: changes.pop(name) for name in list(changes) if name in Features.__slots__}
    hierarchy = Hierarchy({"memory": "/m"}, None) if version == 1 else Hierarchy({}, "/u")
    facts: dict[str, Any] = {
        "hierarchy": hierarchy,
        "features": features(**limits),
        "cpus": 2,
        "capabilities": ALL_CAPABILITIES,
        "last_capability": 40,
        "seccomp": False,
        "kernel": (6, 1),
        "machine": "x86_64",
    }
    return Host(**{**facts, **changes})


def adapt(
    host_config: HostConfig | None = None,
    config: ContainerConfig | None = None,
    on: Host | None = None,
) -> tuple[HostConfig, list[str]]:
    """Adapt, leaving the warning about forwarding to its own test."""
    adapted, warnings = adapt_host_config(
        config or ContainerConfig(cmd=["true"]), host_config or HostConfig(), on or host()
    )
    return adapted, [text for text in warnings if not text.startswith("IPv4 forwarding")]


def build(
    host_config: HostConfig | None = None,
    config: ContainerConfig | None = None,
    *,
    on: Host | None = None,
    **target: Any,
) -> Built:
    """Adapt and build for the container ``c`` * 64."""
    on = on or host()
    config = config or ContainerConfig(cmd=["true"], hostname="box")
    adapted, _ = adapt(host_config, config, on)
    place = {"rootfs": (), "seccomp_dir": Path("/nowhere"), **target}
    return build_document(config, adapted, Target(id="c" * 64, host=on, **place))


def mount_at(built: Built, destination: str) -> dict[str, Any] | None:
    """Return the one mount at a destination."""
    found = [mount for mount in built.config["mounts"] if mount["destination"] == destination]
    assert len(found) <= 1
    return found[0] if found else None
