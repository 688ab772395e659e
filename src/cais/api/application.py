"""The Engine API as one application: every route, and the headers every answer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.api import unsupported
from cais.api.archives import ArchiveRoutes
from cais.api.checkpoints import CheckpointRoutes
from cais.api.commits import CommitRoutes
from cais.api.containers import ContainerRoutes
from cais.api.execs import ExecRoutes
from cais.api.images import ImageRoutes
from cais.api.lifecycle import LifecycleRoutes
from cais.api.networks import NetworkRoutes
from cais.api.registries import RegistryRoutes
from cais.api.router import Router
from cais.api.streams import StreamRoutes
from cais.api.system import SystemRoutes
from cais.api.versions import NEWEST, format_version
from cais.api.volumes import VolumeRoutes
from cais.spec.version import VERSION

if TYPE_CHECKING:
    from cais.engine.engine import Engine


def make_router(engine: Engine, *, experimental: bool = False) -> Router:
    """Return the application that drives ``engine``."""
    registries = RegistryRoutes(engine.transfers)
    modules = (
        SystemRoutes(engine.system, engine.events, engine.disk_use),
        ContainerRoutes(engine.containers),
        LifecycleRoutes(engine.lifecycle, experimental=experimental),
        CheckpointRoutes(engine.checkpoints, experimental=experimental),
        CommitRoutes(engine.commits, engine.changes),
        ArchiveRoutes(engine.archives),
        StreamRoutes(engine.streams),
        ExecRoutes(engine.execs),
        registries,
        ImageRoutes(engine.images, registries.pull),
        NetworkRoutes(engine.networks),
        VolumeRoutes(engine.volumes),
    )
    return Router((route for module in modules for route in module.routes()), unsupported.routes)


def common_headers(*, experimental: bool = False) -> list[tuple[str, str]]:
    """Return what every answer says of the daemon."""
    return [
        ("Api-Version", format_version(NEWEST)),
        ("Docker-Experimental", "true" if experimental else "false"),
        ("Ostype", "linux"),
        ("Server", f"Cais/{VERSION} (linux)"),
    ]
