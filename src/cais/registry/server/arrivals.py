"""Blobs on their way from an upstream: each once, for all who wait, readable while they come.

What has arrived is sent on at once but for its last byte, which waits until the whole was verified:
nobody ever gets all of a blob that is not what its digest says.

Used from the event loop; each download blocks a thread of the pool.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, BinaryIO

from cais.errors import CaisError, DataLossError
from cais.http.errors import CutShortError
from cais.registry.cancel import Cancel
from cais.registry.errors import RegistryUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cais.content.store import Ingest
    from cais.registry.server.pool import Run
    from cais.registry.server.storage import Storage
    from cais.registry.server.upstream import Upstream
    from cais.spec.digest import Digest

MAX_ATTEMPTS = 5
_PAUSE_S = 1.0
_PIECE_BYTES = 512 * 1024


class Arrivals:
    """The downloads under way.

    Args:
        storage: keeps what arrived.
        upstream: where it comes from.
        run: runs the downloads.

    """

    def __init__(self, storage: Storage, upstream: Upstream, run: Run) -> None:
        self._storage = storage
        self._upstream = upstream
        self._run = run
        self._running: dict[Digest, Download] = {}
        self.ended = 0
        """How many have ended, in whatever way."""

    def find(self, digest: Digest) -> Download | None:
        """Return the download of a blob."""
        download = self._running.get(digest)
        return None if download is None or download.is_abandoned else download

    def begin(self, repository: str, digest: Digest, size: int) -> Download:
        """Begin to download a blob, of which the upstream's manifest says the size."""
        download = Download(digest, size, self._ended)
        self._running[digest] = download
        download.start(self._run, self._storage, self._upstream, repository)
        return download

    async def close(self) -> None:
        """End every download."""
        for download in list(self._running.values()):
            await download.cancel()

    def _ended(self, download: Download) -> None:
        self.ended += 1
        if self._running.get(download.digest) is download:
            del self._running[download.digest]


class Download:
    """One blob's."""

    def __init__(self, digest: Digest, size: int, ended: Callable[[Download], None]) -> None:
        self.digest = digest
        self.size_bytes = size
        self._ended = ended
        self._received = 0
        self._readers = 0
        self._file: BinaryIO | None = None  # what has arrived, for reading
        self._changed = asyncio.Event()
        self._cancel = Cancel()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_abandoned(self) -> bool:
        """Whether everybody has left, so that it will not bring anything."""
        return self._cancel.is_set

    def start(self, run: Run, storage: Storage, upstream: Upstream, repository: str) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(run(self._fetch, storage, upstream, repository))
        self._task.add_done_callback(self._finish)

    async def cancel(self) -> None:
        """End it, and wait until it has."""
        self._cancel.set()
        await asyncio.wait([self._task])

    def join(self) -> None:
        """Add a reader."""
        self._readers += 1

    def leave(self) -> None:
        """Take a reader away; with the last one it ends."""
        self._readers -= 1
        if not self._readers:
            self._cancel.set()
            self._close_if_unused()

    async def beyond(self, position: int) -> int:
        """Wait until something may be read behind ``position``; return up to where.

        Raises:
            CaisError: whatever ended the download.

        """
        while not self._task.done():
            if self._received - 1 > position:
                return self._received - 1
            await self._changed.wait()
        self._task.result()
        return self.size_bytes

    def read(self, count: int, position: int) -> bytes:
        """Return some of what has arrived, for somebody who has joined. Blocks."""
        assert self._file is not None
        return os.pread(self._file.fileno(), count, position)

    def _finish(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled():
            task.exception()  # told to whoever reads; perhaps nobody does
        self._ended(self)
        self._changed.set()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._file is not None and not self._readers and self._task.done():
            self._file.close()

    def _progress(self, received: int) -> None:
        self._received = received
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _fetch(self, storage: Storage, upstream: Upstream, repository: str) -> None:
        """Download, verify and keep the blob. Blocks."""
        with storage.content.open_ingest() as ingest:
            self._file = ingest.open_written()
            for attempt in range(1, MAX_ATTEMPTS + 1):
                try:
                    self._receive(ingest, upstream, repository)
                except RegistryUnreachableError:
                    if attempt == MAX_ATTEMPTS:
                        raise
                    self._cancel.sleep(_PAUSE_S * attempt)
                    continue
                break
            if ingest.size_bytes != self.size_bytes:
                raise DataLossError(f"blob {self.digest}: only {ingest.size_bytes} bytes came")
            storage.commit(repository, ingest, self.digest)

    def _receive(self, ingest: Ingest, upstream: Upstream, repository: str) -> None:
        begin = ingest.size_bytes
        with upstream.open_blob(repository, self.digest, begin, self._cancel) as (start, pieces):
            for piece in _from(pieces, begin - start):
                ingest.write(piece)
                if ingest.size_bytes > self.size_bytes:
                    raise DataLossError(f"blob {self.digest}: longer than its manifest says")
                self._loop.call_soon_threadsafe(self._progress, ingest.size_bytes)


class Reader:
    """Somebody's share in a download: a ``shelf.ArrivingBlob``."""

    def __init__(self, download: Download, run: Run) -> None:
        self._download = download
        self._run = run
        self._has_left = False
        download.join()

    @property
    def size_bytes(self) -> int:
        """The whole blob's size."""
        return self._download.size_bytes

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the blob as it comes. CutShortError: it is not what it should be, or broke off."""
        position = 0
        while position < self.size_bytes:
            try:
                end = await self._download.beyond(position)
            except CaisError as exc:
                raise CutShortError(f"blob {self._download.digest}: {exc}") from exc
            count = min(end - position, _PIECE_BYTES)
            piece = await self._run(self._download.read, count, position)
            if not piece:
                raise CutShortError(f"blob {self._download.digest}: lost while it was read")
            position += len(piece)
            yield piece

    def release(self) -> None:
        """Say that nobody will read (on); idempotent."""
        if not self._has_left:
            self._has_left = True
            self._download.leave()


def _from(pieces: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """Leave out the first ``skip`` bytes, which are here from an earlier attempt."""
    for piece in pieces:
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))
