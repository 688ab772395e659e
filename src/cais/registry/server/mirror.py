"""A pull-through cache: what an upstream has, kept here once it was asked for.

A digest is asked for upstream once. A tag is asked for each time, because it may have moved; when
the upstream refuses or does not answer, what the tag last stood for is served. That holds for one
it denies by now, too: blobs and digests that are here are given without asking it, so who may read
the cache may read all that is in it. Only a tag the upstream no longer knows is unknown here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from cais.errors import CaisError, UnavailableError
from cais.registry.errors import RegistryError, UnknownToRegistryError
from cais.registry.server.arrivals import Arrivals, Reader
from cais.registry.server.catalog import ManifestRow
from cais.registry.server.errors import RefusalError, blob_unknown, manifest_unknown
from cais.registry.server.fields import is_digest
from cais.registry.server.shelf import OwnShelf, tag_order
from cais.registry.server.storage import HeldManifest
from cais.spec.digest import parse_digest

if TYPE_CHECKING:
    from cais.registry.server.arrivals import Download
    from cais.registry.server.pool import Run
    from cais.registry.server.shelf import ArrivingBlob
    from cais.registry.server.storage import OpenBlob, Storage
    from cais.registry.server.upstream import Upstream
    from cais.spec.digest import Digest
    from cais.spec.image import Descriptor

log = logging.getLogger(__name__)

SILENCE_S = 30.0
"""How long an upstream that does not answer, or ails, is not asked about what is here."""


class MirrorShelf:
    """The storage as a cache of ``upstream``.

    Args:
        storage: the cache.
        upstream: asked for what is not there.
        run: runs what blocks shortly.
        ask: runs what waits for the upstream.

    """

    def __init__(self, storage: Storage, upstream: Upstream, run: Run, ask: Run) -> None:
        self._own = OwnShelf(storage, run)
        self._storage = storage
        self._upstream = upstream
        self._run = run
        self._ask = ask
        self._arrivals = Arrivals(storage, upstream, ask)
        self._silent_until = 0.0
        self._asking: dict[tuple[str, str], asyncio.Task[HeldManifest]] = {}

    async def close(self) -> None:
        """End what is under way."""
        self._upstream.close()
        await self._arrivals.close()

    async def manifest(self, repository: str, reference: str) -> HeldManifest:
        """Return a manifest by tag or digest. RefusalError: MANIFEST_UNKNOWN."""
        if is_digest(reference):
            try:
                return await self._own.manifest(repository, reference)
            except RefusalError:
                return await self._fetch_once(repository, reference)
        if time.monotonic() < self._silent_until:
            with contextlib.suppress(RefusalError):
                return await self._own.manifest(repository, reference)
        try:
            return await self._fetch_once(repository, reference)
        except (UnavailableError, RegistryError) as exc:
            if _is_ailing(exc):
                self._silent_until = time.monotonic() + SILENCE_S
            return await self._last_known(repository, reference, exc)

    async def blob(self, repository: str, digest: Digest) -> OpenBlob | ArrivingBlob:
        """Return a blob. RefusalError: BLOB_UNKNOWN."""
        try:
            return await self._own.blob(repository, digest)
        except RefusalError:
            size = await self._needed_size(repository, digest)
        download = await self._download(repository, digest, size)
        if download is None:
            return await self._own.blob(repository, digest)
        reader = Reader(download, self._run)
        try:
            await download.beyond(0)  # a refusal comes before the first byte
        except BaseException:
            reader.release()
            raise
        return reader

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """Return a blob's size. RefusalError: BLOB_UNKNOWN."""
        try:
            return await self._own.blob_size(repository, digest)
        except RefusalError:
            return await self._needed_size(repository, digest)

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str, after: str, limit: int
    ) -> list[ManifestRow]:
        """Return manifests about another one, as the upstream has them."""
        try:
            found = await self._ask(self._upstream.referrers, repository, subject)
        except (UnavailableError, RegistryError) as exc:
            log.warning("referrers of %s: %s", subject, exc)
            return await self._own.referrers(repository, subject, artifact_type, after, limit)
        rows = [_row(each) for each in found if each.digest > after]
        if artifact_type:
            rows = [row for row in rows if row.artifact_type == artifact_type]
        return sorted(rows, key=lambda row: row.digest)[:limit]

    async def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` tags behind ``after``. RefusalError: NAME_UNKNOWN."""
        try:
            names = await self._ask(self._upstream.tags, repository)
        except (UnavailableError, RegistryError) as exc:
            log.warning("tags of %s: %s", repository, exc)
            return await self._own.tags(repository, after, limit)
        behind = tag_order(after)
        rest = {name for name in names if tag_order(name) > behind}
        return sorted(rest, key=tag_order)[:limit]

    async def repositories(self, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` names of repositories that are in the cache."""
        return await self._own.repositories(after, limit)

    async def _fetch_once(self, repository: str, reference: str) -> HeldManifest:
        """Ask the upstream for a manifest; who asks meanwhile gets the same answer."""
        key = (repository, reference)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.ensure_future(self._ask(self._fetch, repository, reference))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    def _fetch(self, repository: str, reference: str) -> HeldManifest:
        try:
            found = self._upstream.get_manifest(repository, reference)
        except UnknownToRegistryError as exc:
            raise manifest_unknown(reference) from exc
        held = HeldManifest(found.content, found.media_type, found.digest)
        try:
            self._storage.keep_manifest(repository, reference, held.content, held.media_type)
        except RefusalError as exc:  # of a kind we do not know: passed on, not kept
            log.warning("%s of %s: %s", reference, repository, exc)
        return held

    async def _last_known(
        self, repository: str, reference: str, failure: CaisError
    ) -> HeldManifest:
        try:
            held = await self._own.manifest(repository, reference)
        except RefusalError:
            raise failure from None
        log.warning("%s:%s is served as it was: %s", repository, reference, failure)
        return held

    async def _needed_size(self, repository: str, digest: Digest) -> int:
        """Return the size a manifest gives a blob: nothing else is fetched for anybody."""
        size = await self._run(self._storage.catalog.needed_size, repository, digest)
        if size is None:
            raise blob_unknown(digest)
        return size

    async def _download(self, repository: str, digest: Digest, size: int) -> Download | None:
        """Return the one download of a blob; None: it is here by now."""
        arrivals = self._arrivals
        while (download := arrivals.find(digest)) is None:
            ended = arrivals.ended
            if await self._run(self._storage.mount, repository, digest, None):
                return None
            if arrivals.ended == ended and arrivals.find(digest) is None:
                return arrivals.begin(repository, digest, size)
        return download


def _is_ailing(failure: UnavailableError | RegistryError) -> bool:
    """Whether other names would fare alike: a refusal is about the one that was asked for."""
    if isinstance(failure, RegistryError):
        return failure.status == 429 or failure.status >= 500
    return True


def _row(descriptor: Descriptor) -> ManifestRow:
    return ManifestRow(
        parse_digest(descriptor.digest),
        descriptor.size,
        descriptor.media_type,
        descriptor.artifact_type,
        descriptor.annotations or {},
    )
