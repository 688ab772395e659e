"""The predefined networks for clients: bridge, host, none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Networks:
    """``/networks``: reading only in this version."""

    async def list(
        self, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Return the networks, without their containers (as ``GET /networks``)."""
        raise NotImplementedError

    async def inspect(self, ref: str) -> dict[str, Any]:
        """Return one network, by name, id or id prefix, with its containers. NotFoundError."""
        raise NotImplementedError
