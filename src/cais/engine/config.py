"""Where the engine keeps its things and what it defaults to; filled by ``wiring``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cais.registry.options import RegistryOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cais.spec.identities import IdentityMaps


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the daemon's command line decides about the engine.

    ``data_root`` survives reboots and belongs to one daemon at a time; ``exec_root`` is emptied
    by a reboot (a tmpfs such as /run).
    """

    data_root: Path
    exec_root: Path
    cgroup_parent: str = "/cais"
    """Below which containers without a ``CgroupParent`` of their own get their groups.

    With the ``systemd`` driver the name of a slice.
    """

    cgroup_driver: str = "cgroupfs"
    """Who makes the groups: ``cgroupfs``, the runtime; or ``systemd``."""

    storage_driver: str = ""
    """How layers become roots; "" for how it was done before, or for the best that works."""

    bridge_name: str = ""
    """An existing bridge to use instead of a docker0 of our own with ``bridge_address``."""

    bridge_address: str = ""
    """Address and prefix length of our bridge; "" for the first of Docker's that is free."""

    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other OCI runtimes by name: a program, by its path or its name on PATH, and arguments."""

    identities: IdentityMaps | None = None
    """Who the users of containers are on the host (``--userns-remap``); None: the same."""

    default_runtime: str = ""
    """Of containers that name none; "" for our own."""

    registries: RegistryOptions = field(default_factory=RegistryOptions)
    default_stop_timeout_s: int = 10
    log_max_size_bytes: int = 10 * 1024 * 1024
    log_max_files: int = 5
    ready_namespaces: int = 4
    labels: tuple[str, ...] = field(default=())
    name: str = ""
    """Host name reported by ``info``; the machine's own when empty."""

    debug: bool = False
    experimental: bool = False
