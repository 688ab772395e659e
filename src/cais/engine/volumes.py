"""Volumes for clients: the volume room through the pool, with events and use by containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.pruning import PruneTurn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.engine.core import Core


class Volumes:
    """``/volumes``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.volumes
        self._pruning = PruneTurn()

    async def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Return ``{Volumes, Warnings}``."""
        volumes = await self._core.threads.run(
            self._store.list, filters, in_use=self._core.volumes_in_use()
        )
        return {"Volumes": [volume.to_docker() for volume in volumes], "Warnings": None}

    async def inspect(self, name: str) -> dict[str, Any]:
        """Return one volume. NotFoundError: ``get x: no such volume``."""
        return (await self._core.threads.run(self._store.get, name)).to_docker()

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create a volume, or return the one of that name; "" for an anonymous name."""
        identities = self._core.config.identities
        volume, is_new = await self._core.threads.run(
            self._store.create,
            name,
            driver=driver or "local",
            options=driver_opts,
            labels=labels,
            owner=identities.root if identities else (0, 0),
        )
        if is_new:
            self._announce("create", volume.name)
        return volume.to_docker()

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; ``force``: no error if there is none. ConflictError: in use."""
        users = self._core.volume_users(name)
        await self._core.threads.run(self._store.remove, name, users=users, force=force)
        self._announce("destroy", name)

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove unused anonymous (``all=true``: any) volumes; ``{VolumesDeleted, ...}``.

        PruneRunningError: another one is under way.
        """
        with self._pruning:
            names, reclaimed = await self._core.threads.run(
                self._store.prune, filters, in_use=self._core.volumes_in_use()
            )
        for name in names:
            self._announce("destroy", name)
        self._core.events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return {"VolumesDeleted": names or None, "SpaceReclaimed": reclaimed}

    def _announce(self, action: str, name: str) -> None:
        self._core.events.publish("volume", action, name, {"driver": "local"})
