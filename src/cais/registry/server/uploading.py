"""Blobs on their way in: in one piece, in chunks, or from another repository.

Spec: OCI distribution-spec 1.1, "Pushing blobs", "Mounting a blob from another repository".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.http.messages import Response
from cais.registry.server.errors import RefusalError
from cais.registry.server.fields import parse_content_range, parse_length, parse_name
from cais.registry.server.routes import Deed, Route
from cais.spec.digest import parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.http.messages import Answer
    from cais.registry.server.fields import ByteRange
    from cais.registry.server.pool import Run
    from cais.registry.server.routes import Call
    from cais.registry.server.storage import Storage
    from cais.registry.server.uploads import Upload, Uploads
    from cais.spec.digest import Digest

_BEGIN = "/v2/{name}/blobs/uploads/"
_PATH = "/v2/{name}/blobs/uploads/{place}"


class UploadRoutes:
    """Answers for ``/v2/<name>/blobs/uploads/``."""

    def __init__(self, uploads: Uploads, storage: Storage, run: Run) -> None:
        self._uploads = uploads
        self._storage = storage
        self._run = run

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        return (
            Route("POST", _BEGIN, Deed.WRITE, self.begin),
            Route("POST", _BEGIN.rstrip("/"), Deed.WRITE, self.begin),
            Route("GET", _PATH, Deed.WRITE, self.status),
            Route("PATCH", _PATH, Deed.WRITE, self.append),
            Route("PUT", _PATH, Deed.WRITE, self.finish),
            Route("DELETE", _PATH, Deed.WRITE, self.cancel),
        )

    async def begin(self, call: Call) -> Answer:
        """Mount a blob, take a whole one, or open a session."""
        if call.query.has("mount"):
            digest = parse_digest(call.query.text("mount"))
            source = parse_name(call.query.text("from")) if call.query.text("from") else None
            if await self._run(self._storage.mount, call.repository, digest, source):
                return _created(call, digest)
        elif call.query.has("digest"):
            return await self._take_whole(call, parse_digest(call.query.text("digest")))
        upload = await self._uploads.begin(call.repository)
        return Response(202, headers=upload.headers)

    async def status(self, call: Call) -> Answer:
        """Say how much of an upload is here."""
        upload = self._uploads.get(call.repository, call.place)
        return Response(204, headers=upload.headers)

    async def append(self, call: Call) -> Answer:
        """Take a chunk, or a stream of unknown length."""
        upload = self._uploads.get(call.repository, call.place)
        with self._uploads.writing(upload):
            await self._uploads.append(upload, call.body, _expected(call))
        return Response(202, headers=upload.headers)

    async def finish(self, call: Call) -> Answer:
        """Take what is left, verify the whole, and keep it."""
        upload = self._uploads.get(call.repository, call.place)
        digest = parse_digest(call.query.text("digest"))
        with self._uploads.writing(upload):
            await self._uploads.append(upload, call.body, _expected(call))
            await self._commit(upload, digest)
        return _created(call, digest)

    async def cancel(self, call: Call) -> Answer:
        """Forget an upload."""
        upload = self._uploads.get(call.repository, call.place)
        with self._uploads.writing(upload):
            await self._uploads.end(upload)
        return Response(204)

    async def _take_whole(self, call: Call, digest: Digest) -> Answer:
        upload = await self._uploads.begin(call.repository)
        with self._uploads.writing(upload):
            try:
                await self._uploads.append(upload, call.body, None)
            except BaseException:
                await self._uploads.end(upload)  # nobody was told of it: nobody could go on
                raise
            await self._commit(upload, digest)
        return _created(call, digest)

    async def _commit(self, upload: Upload, digest: Digest) -> None:
        try:
            await self._run(self._storage.commit, upload.repository, upload.ingest, digest)
        finally:
            await self._uploads.end(upload)


def _expected(call: Call) -> ByteRange | None:
    """Return where a chunk belongs; None: the client does not say.

    Raises:
        RefusalError: 416, malformed; SIZE_INVALID, it contradicts ``Content-Length``.

    """
    header = call.headers.get("content-range")
    if header is None or not call.body.is_expected:
        return None
    expected = parse_content_range(header)
    length = parse_length(call.headers.get("content-length"))
    if length is not None and length != expected.size:
        raise RefusalError("SIZE_INVALID", "Content-Range and Content-Length contradict each other")
    return expected


def _created(call: Call, digest: Digest) -> Response:
    location = f"/v2/{call.repository}/blobs/{digest}"
    return Response(201, headers={"Location": location, "Docker-Content-Digest": digest})
