"""Images for clients: the image room through the pool, with events and use by containers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from cais.engine.block_reader import BlockReader
from cais.engine.filters import (
    matches_labels,
    matches_no_label,
    matches_reference,
    parse_filters,
    parse_flag,
)
from cais.engine.messages import Messages
from cais.engine.moments import parse_moment
from cais.engine.patterns import compile_pattern
from cais.errors import ConflictError, NotFoundError
from cais.images import archive, describe, importer
from cais.images.records import check_platform
from cais.images.store import ImageUse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from cais.engine.core import Core
    from cais.images.store import ImageRecord
    from cais.spec.platform import Platform

_LIST_FILTERS = frozenset(("before", "since", "dangling", "label", "label!", "reference", "until"))
_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))


class Images:
    """``/images``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images

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
        self, ref: str, *, force: bool = False, prune: bool = True
    ) -> list[dict[str, str]]:
        """Untag, and delete what no name is left of; ``[{Untagged}, {Deleted}]``.

        Raises:
            ConflictError: containers use it, or several repositories name it (Docker's texts).

        """
        await self._core.background.quiesce()  # snapshots of removed containers pin layers
        record = await self._core.threads.run(self._store.resolve, ref)
        done = await self._core.threads.run(
            self._store.delete, ref, force=force, prune=prune, in_use=self._uses
        )
        self._announce_removal(record.id, done)
        return done

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Delete dangling (or with ``dangling=false`` all unused) images."""
        checked = parse_filters(filters, _PRUNE_FILTERS)
        is_dangling_only = parse_flag(checked, "dangling") is not False
        checked = {name: values for name, values in checked.items() if name != "dangling"}
        tests = await self._core.threads.run(self._tests, checked)
        used = self._containers_by_image()
        deleted: list[dict[str, str]] = []
        reclaimed = 0
        for record in await self._core.threads.run(self._store.list):
            if record.id in used or not matches(record, tests):
                continue
            if is_dangling_only and record.repo_tags:
                continue
            for ref in record.repo_tags or (record.id,):
                with contextlib.suppress(ConflictError, NotFoundError):
                    deleted += await self.remove(ref)
            if any(entry.get("Deleted") == record.id for entry in deleted):
                reclaimed += record.size_bytes
        self._core.events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed}

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

        loading = asyncio.ensure_future(self._feed(source, work))
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

        image_id: str = await self._feed(source, work)
        self._announce("import", image_id, image_id)
        return image_id

    async def _require(self, ref: str, platform: Platform | None) -> None:
        if platform is not None:
            record = await self._core.threads.run(self._store.resolve, ref)
            check_platform(record, ref, platform)

    async def _feed(self, source: AsyncIterator[bytes], work: Callable[[BlockReader], Any]) -> Any:  # noqa: ANN401 - the work's own result
        """Run ``work`` in the pool on the bytes of ``source``; back when it has ended."""
        reader = BlockReader()
        working = asyncio.ensure_future(self._core.threads.run(work, reader))
        working.add_done_callback(lambda _: reader.close())
        try:
            async for block in source:
                if block:
                    await reader.put(block)
                if working.done():
                    break
            await reader.put(b"")
            return await asyncio.shield(working)
        except BaseException:
            reader.abort()
            await asyncio.gather(working, return_exceptions=True)
            raise

    def _tests(self, filters: Mapping[str, Sequence[str]]) -> list[Callable[[ImageRecord], bool]]:
        """Blocks: resolves the images that ``before`` and ``since`` name."""
        return list(_filter_tests(filters, self._store.resolve, self._core.clock.wall_ns()))

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
        del all  # there are no intermediate images here
        checked = parse_filters(filters, _LIST_FILTERS)
        records = await self._core.threads.run(self._store.list)
        tests = await self._core.threads.run(self._tests, checked)
        containers = self._containers_by_image()
        documents = [
            describe.summary(
                record,
                containers=len(containers.get(record.id, ())),
                shared_size=0 if shared_size else -1,
            )
            for record in records
            if matches(record, tests)
        ]
        if patterns := checked.get("reference"):
            for document in documents:
                _narrow(document, patterns)
        return documents


def matches(record: ImageRecord, tests: Sequence[Callable[[ImageRecord], bool]]) -> bool:
    """Whether an image passes every test."""
    return all(test(record) for test in tests)


def _filter_tests(
    filters: Mapping[str, Sequence[str]], resolve: Callable[[str], ImageRecord], now_ns: int
) -> Iterator[Callable[[ImageRecord], bool]]:
    if (is_dangling := parse_flag(filters, "dangling")) is not None:
        yield lambda record: bool(record.repo_tags) is not is_dangling
    if labels := filters.get("label"):
        yield lambda record: matches_labels(_labels(record), labels)
    if unwanted := filters.get("label!"):
        yield lambda record: matches_no_label(_labels(record), unwanted)
    if patterns := filters.get("reference"):
        for pattern in patterns:
            compile_pattern(pattern)  # refused even where there is no name to match
        yield lambda record: any(
            matches_reference(pattern, name)
            for pattern in patterns
            for name in (*record.repo_tags, *record.repo_digests)
        )
    for name in ("before", "until"):
        for value in filters.get(name, ()):
            limit_ns = (
                resolve(value).created_ns if name == "before" else parse_moment(value, now_ns)
            )
            yield lambda record, limit_ns=limit_ns: record.created_ns < limit_ns  # type: ignore[misc]
    for value in filters.get("since", ()):
        than_ns = resolve(value).created_ns
        yield lambda record, than_ns=than_ns: record.created_ns > than_ns  # type: ignore[misc]


def _narrow(document: dict[str, Any], patterns: Sequence[str]) -> None:
    """Leave only the references that were asked for, as Docker does."""
    for field in ("RepoTags", "RepoDigests"):
        document[field] = [
            name
            for name in document[field]
            if any(matches_reference(pattern, name) for pattern in patterns)
        ]


def _labels(record: ImageRecord) -> Mapping[str, str] | None:
    return record.config.config.labels if record.config.config else None


def _next_blocks(blocks: Iterator[bytes]) -> bytes:
    """Return about a mebibyte, so that a large archive does not hop threads for every read."""
    gathered = bytearray()
    for block in blocks:
        gathered += block
        if len(gathered) >= 1 << 20:
            break
    return bytes(gathered)
