"""What is stored of a container: what was asked for, what was decided, and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

# msgspec reads these annotations at run time.
from cais.network.endpoint import Attachment  # noqa: TC001
from cais.spec.container import ContainerConfig, HostConfig, NetworkingConfig  # noqa: TC001
from cais.spec.identities import IdentityMaps  # noqa: TC001
from cais.volumes.mounts import MountPoint  # noqa: TC001

if TYPE_CHECKING:
    from cais.spec.container import RestartPolicy

__all__ = ["ContainerRecord", "HealthRecord", "ProbeRecord", "StateRecord"]


class ProbeRecord(msgspec.Struct, omit_defaults=True):
    """One health check that was made. Times are Unix nanoseconds."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str = ""


class HealthRecord(msgspec.Struct, omit_defaults=True):
    """What the health checks of the present run found."""

    status: str = "starting"
    failing_streak: int = 0
    log: list[ProbeRecord] = []


class StateRecord(msgspec.Struct, omit_defaults=True):
    """Docker's state: ``running`` stays true while paused or restarting.

    ``pid`` is 0 unless a process runs; ``start_ticks`` and ``boot_id`` tell whether a process of
    that number still is the same one. ``paused_for_commit`` tells whom ``paused`` is due to.
    """

    running: bool = False
    paused: bool = False
    paused_for_commit: bool = False
    restarting: bool = False
    removing: bool = False
    dead: bool = False
    oom_killed: bool = False
    pid: int = 0
    start_ticks: int = 0
    boot_id: str = ""
    exit_code: int = 0
    error: str = ""
    started_at_ns: int = 0
    finished_at_ns: int = 0
    is_manually_stopped: bool = False
    health: HealthRecord | None = None

    @property
    def status(self) -> str:
        """Docker's word for the state."""
        if self.running:
            if self.paused:
                return "paused"
            return "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "exited" if self.started_at_ns else "created"


class ContainerRecord(msgspec.Struct, omit_defaults=True):
    """A container. ``config`` is merged with the image's; ``name`` has its slash."""

    id: str
    name: str
    created_at_ns: int
    image_id: str
    image_ref: str
    """As the user wrote it, for lists and events."""

    parent: str
    """Chain id of the snapshot below the container's own; "" for an image without layers."""

    path: str
    args: list[str]
    config: ContainerConfig
    host_config: HostConfig
    networking: NetworkingConfig | None = None
    mounts: list[MountPoint] = []
    state: StateRecord = msgspec.field(default_factory=StateRecord)
    restart_count: int = 0
    attachment: Attachment | None = None
    """The network of the present run."""

    identities: IdentityMaps | None = None
    """Who its users are on the host, whatever the daemon does for others; None: the same."""

    network_id: str = ""
    """The id of the last run's network; "" until the first."""

    hosts_owner: str = ""
    """The container whose hosts, hostname and resolv.conf this one uses; "" for its own."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels, the image's included."""
        return self.config.labels or {}

    @property
    def tty(self) -> bool:
        """Whether it has a terminal."""
        return self.config.tty

    @property
    def auto_remove(self) -> bool:
        """Whether it is removed when it ends."""
        return self.host_config.auto_remove

    @property
    def restart_policy(self) -> RestartPolicy:
        """When it is started again."""
        return self.host_config.restart_policy

    @property
    def network_mode(self) -> str:
        """HostConfig.NetworkMode."""
        return self.host_config.network_mode or "default"
