"""Volumes for clients: the volume room through the pool, with events and use by containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Volumes:
    """``/volumes``."""

    async def list(
        self, filters: Mapping[str, Sequence[str]] | None = None
    ) -> dict[str, Any]:
        """Return ``{Volumes, Warnings}``."""
        raise NotImplementedError

    async def inspect(self, name: str) -> dict[str, Any]:
        """Return one volume. NotFoundError: ``get x: no such volume``."""
        raise NotImplementedError

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create a volume, or return the one of that name; "" for an anonymous name."""
        raise NotImplementedError

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; ``force``: no error if there is none. ConflictError: in use."""
        raise NotImplementedError

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove unused anonymous (``all=true``: any) volumes; ``{VolumesDeleted, ...}``."""
        raise NotImplementedError
