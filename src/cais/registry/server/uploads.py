"""Uploads under way: one file each, hashed as it grows, one writer at a time.

Sessions live in memory and their files in the content store's ingest: a crash ends them all, and
clients begin again, as they do after a 404. A session nobody writes to goes after ``IDLE_S``.

Methods are called from the event loop only; the files are written in a pool (``Run``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING

from cais.errors import ExhaustedError, InternalError
from cais.registry.server.errors import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.content.store import ContentStore, Ingest
    from cais.http.messages import Body
    from cais.registry.server.fields import ByteRange
    from cais.registry.server.pool import Run

MAX_UPLOADS = 1024
_BATCH_BYTES = 512 * 1024
IDLE_S = 3600.0


class Upload:
    """One session. ``ingest`` is written only inside ``Uploads.writing``."""

    def __init__(self, repository: str, ingest: Ingest) -> None:
        self.id = str(uuid.uuid4())
        self.repository = repository
        self.ingest = ingest
        self.size_bytes = 0
        """How much has been received."""

        self.touched = time.monotonic()
        self.is_busy = False

    @property
    def location(self) -> str:
        """Where the client goes on."""
        return f"/v2/{self.repository}/blobs/uploads/{self.id}"

    @property
    def headers(self) -> dict[str, str]:
        """What every answer about the session says."""
        return {
            "Location": self.location,
            "Range": f"0-{max(self.size_bytes - 1, 0)}",
            "Docker-Upload-UUID": self.id,
        }


class Uploads:
    """All sessions.

    Args:
        content: where the files are.
        run: runs what blocks.
        maximum: how many sessions there may be.
        idle_s: after which one is given up.

    """

    def __init__(
        self,
        content: ContentStore,
        run: Run,
        *,
        maximum: int = MAX_UPLOADS,
        idle_s: float = IDLE_S,
    ) -> None:
        self._content = content
        self._run = run
        self._maximum = maximum
        self._idle_s = idle_s
        self._uploads: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._uploads)

    async def begin(self, repository: str) -> Upload:
        """Open a session. RefusalError: TOOMANYREQUESTS."""
        if len(self._uploads) >= self._maximum:
            self.expire()
        if len(self._uploads) >= self._maximum:
            raise RefusalError(
                "TOOMANYREQUESTS", "too many uploads are under way", headers={"Retry-After": "30"}
            )
        upload = Upload(repository, self._content.open_ingest())
        self._uploads[upload.id] = upload
        try:
            await self._run(upload.ingest.__enter__)
        except BaseException:
            self._forget(upload)
            raise
        return upload

    def get(self, repository: str, upload_id: str) -> Upload:
        """Return a session of a repository. RefusalError: BLOB_UPLOAD_UNKNOWN."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.repository != repository:
            raise RefusalError("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return upload

    @contextlib.contextmanager
    def writing(self, upload: Upload) -> Iterator[None]:
        """Be the session's one writer. RefusalError: BLOB_UPLOAD_INVALID, there is another."""
        if upload.is_busy:
            raise RefusalError("BLOB_UPLOAD_INVALID", "another request is writing this upload")
        upload.is_busy = True
        try:
            yield
        finally:
            upload.is_busy = False
            upload.touched = time.monotonic()

    async def append(self, upload: Upload, body: Body, expected: ByteRange | None) -> None:
        """Write what arrives; what came before its client went is kept, to be resumed.

        Args:
            upload: being written by the caller.
            body: what to append.
            expected: where it begins and how long it is, if the client said so.

        Raises:
            RefusalError: 416, it does not begin where the session ends; SIZE_INVALID, it is not
                as long as was said: the session is over then.

        """
        if expected is not None and expected.offset != upload.size_bytes:
            raise RefusalError(
                "RANGE_INVALID", "the chunk does not follow the last one", headers=upload.headers
            )
        end = None if expected is None else upload.size_bytes + expected.size
        try:
            await self._write(upload, body, end)
        except (ExhaustedError, InternalError):
            await self.end(upload)  # what was written is not what was received
            raise
        if end is not None and upload.size_bytes != end:
            await self.end(upload)
            raise RefusalError("SIZE_INVALID", "the chunk is not as long as its Content-Range says")

    async def _write(self, upload: Upload, body: Body, end: int | None) -> None:
        """Write a body until it is over, or longer than ``end`` allows."""
        writer = _Writer(upload.ingest, self._run)
        try:
            async for piece in body:
                await writer.add(piece)
                upload.size_bytes += len(piece)
                upload.touched = time.monotonic()
                if end is not None and upload.size_bytes > end:
                    return
        finally:
            await writer.flush()

    async def end(self, upload: Upload) -> None:
        """Close a session; what was not committed is deleted."""
        self._uploads.pop(upload.id, None)
        await self._run(upload.ingest.abort)

    def expire(self) -> None:
        """End the sessions nobody has written to for long."""
        now = time.monotonic()
        for upload in list(self._uploads.values()):
            if not upload.is_busy and now - upload.touched >= self._idle_s:
                self._forget(upload)

    def close(self) -> None:
        """End every session."""
        for upload in list(self._uploads.values()):
            self._forget(upload)

    def _forget(self, upload: Upload) -> None:
        del self._uploads[upload.id]
        upload.ingest.abort()


class _Writer:
    """Writes large pieces, one behind the other, while the next one is being received."""

    def __init__(self, ingest: Ingest, run: Run) -> None:
        self._ingest = ingest
        self._run = run
        self._waiting = bytearray()
        self._writing: asyncio.Future[None] | None = None

    async def add(self, piece: bytes) -> None:
        """Take a piece; it may be written later."""
        self._waiting += piece
        if len(self._waiting) >= _BATCH_BYTES:
            await self._settle()
            full, self._waiting = self._waiting, bytearray()
            self._writing = asyncio.ensure_future(self._run(self._ingest.write, memoryview(full)))

    async def flush(self) -> None:
        """Write everything. Raises whatever a write raised."""
        await self._settle()
        if self._waiting:
            full, self._waiting = self._waiting, bytearray()
            await self._run(self._ingest.write, memoryview(full))

    async def _settle(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing
