"""The predefined networks for clients: bridge, host, none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.filters import matches_labels, parse_filters, parse_flag
from cais.engine.moments import parse_until
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.engine.core import Core

_FILTERS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))

_PRUNE_FILTERS = frozenset(("until", "label", "label!"))


class Networks:
    """``/networks``: reading only in this version."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(
        self, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """Return the networks, without their containers (as ``GET /networks``)."""
        checked = parse_filters(filters, _FILTERS)
        documents = await self._core.threads.run_network(self._core.network.list)
        return [
            {**document, "Containers": {}} for document in documents if _matches(document, checked)
        ]

    async def inspect(self, ref: str) -> dict[str, Any]:
        """Return one network, by name, id or id prefix, with its containers. NotFoundError."""
        return await self._core.threads.run_network(
            self._core.network.inspect, ref, names=self._name_of
        )

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove unused networks: never a predefined one, and there are no others yet.

        Raises:
            InvalidArgumentError: a filter other than until, label, label!; a malformed until.
            PruneRunningError: another one, or one of containers, is under way.

        """
        with self._core.pruning:
            checked = parse_filters(filters, _PRUNE_FILTERS)
            parse_until(checked, self._core.clock.wall_ns())
        self._core.events.publish("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": None}

    def _name_of(self, container_id: str) -> str:
        container = self._core.table.find(container_id)
        return container.record.name.removeprefix("/") if container else ""


def _matches(document: Mapping[str, Any], filters: Mapping[str, Sequence[str]]) -> bool:
    is_dangling = parse_flag(filters, "dangling")
    kinds = filters.get("type", ("builtin",))
    for kind in kinds:
        if kind not in ("builtin", "custom"):
            raise InvalidArgumentError(f"invalid filter: 'type'='{kind}'")
    return all(
        (
            not is_dangling,  # predefined networks never are
            _has_any(document["Name"], filters.get("name")),
            _has_any(document["Id"], filters.get("id")),
            document["Driver"] in filters.get("driver", (document["Driver"],)),
            document["Scope"] in filters.get("scope", (document["Scope"],)),
            "builtin" in kinds,
            matches_labels(document.get("Labels"), filters.get("label", ())),
        )
    )


def _has_any(text: str, parts: Sequence[str] | None) -> bool:
    return parts is None or any(part in text for part in parts)
