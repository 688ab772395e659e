"""Blobs: read, asked for, deleted.

Spec: OCI distribution-spec 1.1, "Pulling blobs", "Checking if content exists", "Deleting Blobs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.http.messages import FileRange, Response, Stream
from cais.registry.server.fields import parse_range
from cais.registry.server.routes import Deed, Route
from cais.registry.server.storage import OpenBlob
from cais.spec.digest import parse_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from cais.http.messages import Answer
    from cais.registry.server.pool import Run
    from cais.registry.server.routes import Call
    from cais.registry.server.shelf import ArrivingBlob, Shelf
    from cais.registry.server.storage import Storage

_PATH = "/v2/{name}/blobs/{place}"
_TYPE = "application/octet-stream"


class BlobRoutes:
    """Answers for ``/v2/<name>/blobs/<digest>``."""

    def __init__(self, shelf: Shelf, storage: Storage, run: Run) -> None:
        self._shelf = shelf
        self._storage = storage
        self._run = run

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        return (
            Route("GET", _PATH, Deed.READ, self.get),
            Route("HEAD", _PATH, Deed.READ, self.head),
            Route("DELETE", _PATH, Deed.DELETE, self.delete),
        )

    async def get(self, call: Call) -> Answer:
        """Send a blob, or the range that was asked for."""
        digest = parse_digest(call.place)
        headers = _headers(digest)
        if headers["Etag"] in call.headers.get("if-none-match", ""):
            await self._shelf.blob_size(call.repository, digest)
            return Response(304, headers=headers)
        blob = await self._shelf.blob(call.repository, digest)
        if isinstance(blob, OpenBlob):
            return _answer(blob, call, headers)
        return _stream(blob, headers)

    async def head(self, call: Call) -> Answer:
        """Say that a blob is there, and its size."""
        digest = parse_digest(call.place)
        size = await self._shelf.blob_size(call.repository, digest)
        return Stream(_nothing(), _TYPE, headers=_headers(digest), size=size)

    async def delete(self, call: Call) -> Answer:
        """Take a blob out of its repository."""
        digest = parse_digest(call.place)
        await self._run(self._storage.remove_blob, call.repository, digest)
        return Response(202, headers={"Docker-Content-Digest": digest})


def _headers(digest: str) -> dict[str, str]:
    return {
        "Docker-Content-Digest": digest,
        "Etag": f'"{digest}"',
        "Accept-Ranges": "bytes",
    }


def _answer(blob: OpenBlob, call: Call, headers: Mapping[str, str]) -> FileRange:
    try:
        part = parse_range(call.headers.get("range", ""), blob.size_bytes)
    except BaseException:
        blob.file.close()
        raise
    if part is None:
        return FileRange(blob.file, 0, blob.size_bytes, 200, _TYPE, headers)
    last = part.offset + part.size - 1
    headers = {**headers, "Content-Range": f"bytes {part.offset}-{last}/{blob.size_bytes}"}
    return FileRange(blob.file, part.offset, part.size, 206, _TYPE, headers)


def _stream(blob: ArrivingBlob, headers: Mapping[str, str]) -> Stream:
    """Send what is still being downloaded, whole: RFC 9110 lets a server ignore ``Range``."""
    whole = {name: value for name, value in headers.items() if name != "Accept-Ranges"}
    return Stream(blob.pieces(), _TYPE, release=blob.release, headers=whole, size=blob.size_bytes)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""  # what makes it an iterator
