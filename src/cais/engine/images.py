"""Images for clients: the image room through the pool, with events and use by containers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from cais.engine.block_reader import BlockReader, read_in_pool
from cais.engine.image_selection import ListSelection, PruneSelection
from cais.engine.messages import Messages
from cais.engine.pruning import PruneTurn
from cais.errors import ConflictError, NotFoundError
from cais.images import archive, describe, importer
from cais.images.footprint import DiskFootprint, content_footprint
from cais.images.records import check_platform
from cais.images.remote_archives import complete_url, open_remote
from cais.images.store import ImageUse
from cais.registry.cancel import Cancel

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from cais.engine.core import Core
    from cais.images.footprint import Footprint, Part
    from cais.images.store import ImageRecord
    from cais.spec.platform import Platform


class Images:
    """``/images``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images
        self._disk = DiskFootprint(core.images)
        self._pruning = PruneTurn()

    async def inspect(self, ref: str, platform: Platform | None = None) -> dict[str, Any]:
        """Return the document of ``GET /images/{name}/json``.

        Raises:
            ImageNotFoundError, PlatformNotFoundError: no such image, or not for ``platform``.

        """
        await self._require(ref, platform)
        return await self._core.threads.run(self._store.inspect, ref)

    async def history(self, ref: str, platform: Platform | None = None) -> list[dict[str, Any]]:
        """Return the layers' history, newest first; raises as ``inspect``."""
        await self._require(ref, platform)
        return await self._core.threads.run(self._store.history, ref)

    async def tag(self, ref: str, repository: str, tag: str | None = None) -> None:
        """Give an image another name; a name taken moves over."""
        shown = await self._core.threads.run(self._store.tag, ref, repository, tag)
        record = await self._core.threads.run(self._store.resolve, ref)
        self._announce("tag", record.id, shown)

    async def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        prune: bool = True,
        chosen: ImageRecord | None = None,
    ) -> list[dict[str, str]]:
        """Untag, and delete what no name is left of; ``[{Untagged}, {Deleted}]``.

        Args:
            ref: a name or an id.
            force, prune, chosen: as of ``ImageStore.delete``.

        Raises:
            ConflictError: containers use it, or several repositories name it (Docker's texts).

        """
        await self._core.background.quiesce()  # snapshots of removed containers pin layers
        image_id = await self._core.threads.run(self._store.find_id, ref)
        done = await self._core.threads.run(
            self._store.delete, ref, force=force, prune=prune, in_use=self._uses, chosen=chosen
        )
        self._announce_removal(image_id, done)
        return done

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Delete dangling (or with ``dangling=false`` all unused) images.

        ``SpaceReclaimed`` is what the disk has back: blobs and unpacked layers.

        PruneRunningError: another one is under way.
        """
        with self._pruning:
            return await self._prune(PruneSelection(filters, self._core.clock.wall_ns()))

    async def _prune(self, selection: PruneSelection) -> dict[str, Any]:
        records = await self._core.threads.run(self._store.list)
        deleted: list[dict[str, str]] = []
        before: dict[Part, int] = {}
        for record in selection.choose(records, self._containers_by_image()):
            before |= await self._core.threads.run(self._disk.parts, record)
            for ref in (*record.repo_tags, *record.repo_digests) or (record.id,):
                with contextlib.suppress(ConflictError, NotFoundError):
                    deleted += await self.remove(ref, chosen=record)
        reclaimed = await self._core.threads.run(self._disk.freed, before)
        self._core.events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed}

    async def disk_use(self) -> tuple[int, list[dict[str, Any]]]:
        """Return what all blobs and layers take on the disk, and summaries with such sizes."""
        records = await self._core.threads.run(self._store.list)
        footprint = await self._core.threads.run(self._disk.measure, records)
        total = await self._core.threads.run(self._disk.total)
        containers = self._containers_by_image()
        sizes = footprint.size_bytes
        return total, [
            {**document, "Size": sizes[record.id], "Containers": len(containers.get(record.id, ()))}
            for record, document in zip(records, self._summaries(records, footprint), strict=True)
        ]

    async def load(
        self,
        source: AsyncIterator[bytes],
        *,
        quiet: bool = False,
        platform: Platform | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Load a docker-archive or OCI layout; yields Docker's progress messages."""
        messages, loop = Messages(), asyncio.get_running_loop()

        def work(reader: BlockReader) -> None:
            with messages:
                for image in archive.load(
                    reader, self._store, progress=messages.report, quiet=quiet, platform=platform
                ):
                    loop.call_soon_threadsafe(self._announce_load, image.id, image.names)

        loading = asyncio.ensure_future(read_in_pool(self._core.threads, source, work))
        try:
            async for message in messages:
                yield message
            await loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)

    async def save(
        self, refs: Sequence[str], platform: Platform | None = None
    ) -> AsyncIterator[bytes]:
        """Write images as one archive; yields its bytes. All of them must be for ``platform``."""
        blocks = await self._core.threads.run(archive.save, self._store, list(refs), platform)
        first = await self._core.threads.run(next, blocks, b"")
        for ref in refs:
            record = await self._core.threads.run(self._store.resolve, ref)
            self._announce("save", record.id, record.id)
        yield first
        while block := await self._core.threads.run(_next_blocks, blocks):
            yield block

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> str:
        """Make an image of one root file system archive; return its id."""

        def work(reader: BlockReader) -> str:
            return importer.import_rootfs(
                reader,
                self._store,
                repository=repository,
                tag=tag,
                message=message,
                changes=changes,
                platform=platform,
            )

        image_id = await read_in_pool(self._core.threads, source, work)
        self._announce("import", image_id, image_id)
        return image_id

    async def import_url(
        self,
        url: str,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> AsyncIterator[dict[str, Any]]:
        """Make an image of an archive that the daemon fetches; yields Docker's messages."""
        messages, cancel = Messages(), Cancel()

        def report(current: int, total: int) -> None:
            detail = {"current": current, "total": total}
            messages.report({"status": "Importing", "progressDetail": detail})

        def work() -> str:
            with messages, open_remote(url, cancel, report) as source:
                messages.report({"status": f"Downloading from {complete_url(url)}"})
                return importer.import_rootfs(
                    source,
                    self._store,
                    repository=repository,
                    tag=tag,
                    message=message,
                    changes=changes,
                    platform=platform,
                    origin=url,
                )

        importing = asyncio.ensure_future(self._core.threads.run(work))
        try:
            async for said in messages:
                yield said
            image_id = await importing
        finally:
            cancel.set()
            await asyncio.gather(importing, return_exceptions=True)
        self._announce("import", image_id, image_id)
        yield {"status": image_id}

    async def _require(self, ref: str, platform: Platform | None) -> None:
        if platform is not None:
            record = await self._core.threads.run(self._store.resolve, ref)
            check_platform(record, ref, platform)

    def _containers_by_image(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for container in self._core.table:
            found.setdefault(container.record.image_id, []).append(container.id)
        return found

    def _uses(self, image_id: str) -> Sequence[ImageUse]:
        return [
            ImageUse(container.id, is_running=container.record.state.running)
            for container in self._core.table
            if container.record.image_id == image_id
        ]

    def _announce(self, action: str, image_id: str, name: str) -> None:
        self._core.events.publish("image", action, image_id, {"name": name})

    def _announce_load(self, image_id: str, names: Sequence[str]) -> None:
        self._announce("load", image_id, names[0] if names else image_id)

    def _announce_removal(self, image_id: str, done: Sequence[Mapping[str, str]]) -> None:
        for entry in done:
            if "Untagged" in entry and "@" not in entry["Untagged"]:
                self._announce("untag", image_id, image_id)
            elif entry.get("Deleted", "") == image_id:
                self._announce("delete", image_id, image_id)

    async def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - the API's word
        filters: Mapping[str, Sequence[str]] | None = None,
        shared_size: bool = False,
    ) -> list[dict[str, Any]]:
        """Return the summaries of ``GET /images/json``, newest first."""
        selection = ListSelection(filters, show_all=all)
        records = await self._core.threads.run(self._store.list)
        chosen = await self._core.threads.run(
            selection.choose, records, self._store.resolve, self._core.clock.wall_ns()
        )
        footprint = content_footprint(records) if shared_size else None
        return [selection.narrow(each) for each in self._summaries(chosen, footprint)]

    def _summaries(
        self, records: Sequence[ImageRecord], footprint: Footprint | None
    ) -> builtins.list[dict[str, Any]]:
        containers = self._containers_by_image()
        return [
            describe.summary(
                record,
                containers=len(containers.get(record.id, ())),
                shared_size=footprint.shared_bytes[record.id] if footprint else -1,
            )
            for record in records
        ]


def _next_blocks(blocks: Iterator[bytes]) -> bytes:
    """Return about a mebibyte, so that a large archive does not hop threads for every read."""
    gathered = bytearray()
    for block in blocks:
        gathered += block
        if len(gathered) >= 1 << 20:
            break
    return bytes(gathered)
