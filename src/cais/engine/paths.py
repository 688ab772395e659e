"""The engine's own files; other rooms own what is theirs under the same roots.

::

    <data-root>/caisd.lock                     flock: one daemon
    <data-root>/state.db                       cais.engine.state
    <data-root>/containers/<id>/record.json    the record as created, to rebuild a lost database
    <data-root>/containers/<id>/<id>-json.log  written by the shim
    <data-root>/containers/<id>/hosts, hostname, resolv.conf
    <exec-root>/bundles/<id>/                  config.json, cais.json, exec-<exec-id>.json
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
    def containers(self) -> Path:
        """A directory for each container."""
        return self.data_root / "containers"

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
        """Return a file of a container: ``hosts``, ``hostname``, ``resolv.conf``, ..."""
        return f"{self.data_root}/containers/{container_id}/{name}"

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
