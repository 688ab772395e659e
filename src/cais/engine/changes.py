"""What a container has in its root: ``docker diff`` and ``docker export``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from cais.engine.block_writer import blocks_in_pool
from cais.errors import ConflictError
from cais.images.comparison import Comparison
from cais.images.layer_writer import pack_tree
from cais.images.tar_writer import in_blocks
from cais.snapshots.merged import open_snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from cais.engine.core import Core
    from cais.engine.table import Container


class Changes:
    """``/containers/{id}/changes`` and ``/containers/{id}/export``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def changes(self, ref: str) -> list[dict[str, Any]]:
        """Return what was changed, added and deleted, parents before what is in them.

        Raises:
            ContainerNotFoundError: no such container.

        """
        container = self._core.table.resolve(ref)
        return await self._core.threads.run(self._compare, container)

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """Write the root file system, without what is mounted on it, as an archive.

        Raises:
            ContainerNotFoundError: no such container.
            ConflictError: it is being removed.

        """
        container = self._core.table.resolve(ref)
        state = container.record.state
        if state.dead or state.removing:
            what = "dead" if state.dead else "being removed"
            raise ConflictError(f"You cannot export container {container.id} which is {what}")
        blocks = blocks_in_pool(self._core.threads, self._pack(container))
        async with contextlib.aclosing(blocks):
            is_first = True
            async for block in blocks:
                if is_first:
                    self._core.announce(container, "export")
                    is_first = False
                yield block

    def _compare(self, container: Container) -> list[dict[str, Any]]:
        with open_snapshot(self._core.snapshots, container.id) as pair:
            found = Comparison(pair.now, pair.before, is_laid_over=pair.is_laid_over)
            changes = [
                {"Path": change.entry.path.removeprefix("."), "Kind": int(change.kind)}
                for change in found
            ]
        self._core.snapshots.stat(container.id)  # removed meanwhile: this was not all
        return changes

    def _pack(self, container: Container) -> Generator[bytes, None, None]:
        snapshots = self._core.snapshots
        with open_snapshot(snapshots, container.id) as pair:
            yield from in_blocks(pack_tree(pair.now))
        snapshots.stat(container.id)  # removed meanwhile: what was read was not all of it
