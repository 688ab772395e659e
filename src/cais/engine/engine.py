"""The facade: one object per daemon, its attributes are the use cases by resource.

Everything the API, the library and the tests do goes through here. Methods are coroutines unless
their docstring says otherwise; references are names, full ids or unambiguous id prefixes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from cais.engine.config import EngineConfig
    from cais.engine.containers import Containers
    from cais.engine.events import Events
    from cais.engine.execs import Execs
    from cais.engine.images import Images
    from cais.engine.lifecycle import Lifecycle
    from cais.engine.networks import Networks
    from cais.engine.streams import Streams
    from cais.engine.system import System
    from cais.engine.volumes import Volumes


class Engine:
    """Owns the state of one data root. ``open`` it once, ``close`` it when the daemon ends."""

    containers: Containers
    lifecycle: Lifecycle
    streams: Streams
    execs: Execs
    images: Images
    networks: Networks
    volumes: Volumes
    events: Events
    system: System

    @classmethod
    async def open(cls, config: EngineConfig) -> Self:
        """Lock the data root, open the state, find or start the shim, and reconcile.

        Containers that run go on running; those that ended while no daemon was there get their
        exit code; what a crash left half done is removed.

        Raises:
            ConflictError: another daemon holds the data root.
            UnavailableError: the shim cannot be started.

        """
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of everything but the containers, which go on running under the shim."""
        raise NotImplementedError
