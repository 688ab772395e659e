"""The engine's own files; other rooms own what is theirs under the same roots.

::

    <data-root>/caisd.lock                     flock: one daemon
    <data-root>/state.db                       cais.engine.state
    <data-root>/copies.db                      cais.engine.copies
    <data-root>/reserve/                       cais.engine.reserve
    <data-root>/containers/<id>/<id>-json.log  written by the shim; no directory without a log
    <exec-root>/bundles/<id>/                  config.json, cais.json, exec-<exec-id>.json, and
                                               hosts, hostname, resolv.conf; while it runs
    <data-root>/docker-init                    the init of --init for runtimes that need a file
    <exec-root>/runtimes/<name>/               of the shim: what other runtimes keep
    <exec-root>/netns/                         pinned network namespaces
    <exec-root>/shim.sock
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are."""

    data_root: Path
    exec_root: Path

    @property
    def lock(self) -> Path:
        """Held by the daemon of this data root."""
        return self.data_root / "caisd.lock"

    @property
    def database(self) -> Path:
        """The state database."""
        return self.data_root / "state.db"

    @property
    def reserve(self) -> Path:
        """Room to start in on a full disk."""
        return self.data_root / "reserve"

    @property
    def containers(self) -> Path:
        """A directory for each container that has written something."""
        return self.data_root / "containers"

    @property
    def copies(self) -> Path:
        """The copies of the records."""
        return self.data_root / "copies.db"

    @property
    def init_program(self) -> Path:
        """The init that is mounted into containers of other runtimes."""
        return self.data_root / "docker-init"

    @property
    def bundles(self) -> Path:
        """A directory for each container that was started."""
        return self.exec_root / "bundles"

    @property
    def namespaces(self) -> Path:
        """Pinned network namespaces."""
        return self.exec_root / "netns"

    def container(self, container_id: str) -> str:
        """Return a container's directory."""
        return f"{self.data_root}/containers/{container_id}"

    def container_file(self, container_id: str, name: str) -> str:
        """Return ``hosts``, ``hostname`` or ``resolv.conf`` of a container that runs."""
        return f"{self.bundle(container_id)}/{name}"

    def log(self, container_id: str) -> str:
        """Return a container's log file."""
        return f"{self.data_root}/containers/{container_id}/{container_id}-json.log"

    def bundle(self, container_id: str) -> str:
        """Return a container's bundle directory."""
        return f"{self.exec_root}/bundles/{container_id}"

    def ensure(self) -> None:
        """Make the directories. Blocks."""
        self.data_root.mkdir(mode=0o710, parents=True, exist_ok=True)
        self.exec_root.mkdir(mode=0o710, parents=True, exist_ok=True)
        for path in (self.containers, self.bundles, self.namespaces):
            path.mkdir(mode=0o700, exist_ok=True)
