"""What one container takes on the disk beyond its image and its volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.errors import NotFoundError
from cais.linux.tree_size import tree_size_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.engine.core import Core


def container_disk_use(core: Core, container_id: str) -> int:
    """Return the bytes, as ``du`` counts, of what it has written and of its logs.

    Blocks: walks its files.
    """
    return sum(tree_size_at(path)[1] for path in _places(core, container_id))


def _places(core: Core, container_id: str) -> Iterator[str]:
    """Yield where its files are; any of these may not be there."""
    yield core.paths.container(container_id)
    try:
        yield from core.snapshots.places(container_id)
    except NotFoundError:
        return
