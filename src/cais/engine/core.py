"""What every service of the engine works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cais.engine.clock import Clock
from cais.engine.events import Events
from cais.engine.mapped_roots import MappedRoots
from cais.engine.pruning import PruneTurn
from cais.engine.runtimes import Runtimes
from cais.engine.table import Table
from cais.engine.tasks import Background, Threads
from cais.engine.watch import LogWatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.engine.config import EngineConfig
    from cais.engine.copies import Copies
    from cais.engine.paths import Paths
    from cais.engine.shims import ShimLink
    from cais.engine.state import State
    from cais.engine.table import Container
    from cais.images.store import ImageStore
    from cais.network.manager import NetworkManager
    from cais.snapshots.snapshotter import Snapshotter
    from cais.volumes.store import VolumeStore


@dataclass(slots=True)
class Core:
    """The open parts; services hold it and never each other's inside."""

    config: EngineConfig
    paths: Paths
    state: State
    shim: ShimLink
    images: ImageStore
    snapshots: Snapshotter
    network: NetworkManager
    volumes: VolumeStore
    copies: Copies
    boot_id: str
    """Of the kernel that runs now: pids of another one mean nothing."""

    clock: Clock = field(default_factory=Clock)
    events: Events = field(default_factory=Events)
    table: Table = field(default_factory=Table)
    threads: Threads = field(default_factory=Threads)
    background: Background = field(default_factory=Background)
    watch: LogWatch = field(default_factory=LogWatch)
    runtimes: Runtimes = field(init=False)
    mapped_roots: MappedRoots = field(default_factory=MappedRoots)
    pruning: PruneTurn = field(default_factory=PruneTurn)
    """Of containers and networks, which have one between them, as in Docker."""

    creations: dict[str, set[str]] = field(default_factory=dict)
    """Volumes of containers that are being created, by container id."""

    def __post_init__(self) -> None:
        self.runtimes = Runtimes(self.config)

    def volume_users(self, name: str) -> list[str]:
        """Return the ids of the containers that mount a volume or are about to."""
        mounting = [
            one.id for one in self.table if any(name == each.name for each in one.record.mounts)
        ]
        return mounting + [one for one, names in self.creations.items() if name in names]

    def volumes_in_use(self) -> set[str]:
        """Return the names of the volumes that containers mount or are about to."""
        mounted = {each.name for one in self.table for each in one.record.mounts if each.name}
        return mounted.union(*self.creations.values())

    def announce(
        self, container: Container, action: str, extra: Mapping[str, str] | None = None
    ) -> None:
        """Publish an event of a container with Docker's attributes."""
        record = container.record
        attributes = dict(record.labels)
        attributes["image"] = record.image_ref
        attributes["name"] = record.name.removeprefix("/")
        if extra:
            attributes.update(extra)
        self.events.publish("container", action, record.id, attributes)
