"""Manifests: pushed, read, asked for, deleted.

Spec: OCI distribution-spec 1.1, "Pulling manifests", "Pushing Manifests", "Deleting Manifests",
"Deleting tags".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.http.bodies import read_whole
from cais.http.errors import BodyTooLargeError
from cais.http.messages import Response
from cais.registry.server.documents import too_large
from cais.registry.server.errors import RefusalError, manifest_unknown
from cais.registry.server.fields import (
    accepts,
    is_digest,
    media_type_of,
    parse_length,
    parse_manifest_reference,
)
from cais.registry.server.routes import Deed, Route
from cais.spec.image import LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.http.messages import Answer
    from cais.registry.server.pool import Run
    from cais.registry.server.routes import Call
    from cais.registry.server.shelf import Shelf
    from cais.registry.server.storage import HeldManifest, Storage

_PATH = "/v2/{name}/manifests/{place}"


class ManifestRoutes:
    """Answers for ``/v2/<name>/manifests/<reference>``."""

    def __init__(self, shelf: Shelf, storage: Storage, run: Run) -> None:
        self._shelf = shelf
        self._storage = storage
        self._run = run

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        return (
            Route("GET", _PATH, Deed.READ, self.get),
            Route("HEAD", _PATH, Deed.READ, self.get),
            Route("PUT", _PATH, Deed.WRITE, self.put),
            Route("DELETE", _PATH, Deed.DELETE, self.delete),
        )

    async def get(self, call: Call) -> Answer:
        """Send a manifest exactly as it came.

        One of a tag must be of a type the client accepts; what a digest names can be no other.
        """
        reference = _known_reference(call)
        found = await self._shelf.manifest(call.repository, reference)
        if not is_digest(reference):
            _check_acceptable(call, found)
        headers = {"Docker-Content-Digest": found.digest, "Etag": f'"{found.digest}"'}
        if headers["Etag"] in call.headers.get("if-none-match", ""):
            return Response(304, headers=headers)
        return Response(200, found.content, found.media_type, headers)

    async def put(self, call: Call) -> Answer:
        """Store a manifest whose parts are here."""
        reference = parse_manifest_reference(call.place)
        content = await _read(call)
        declared = media_type_of(call.headers.get("content-type", ""))
        digest, facts = await self._run(
            self._storage.put_manifest, call.repository, reference, content, declared
        )
        headers = {
            "Location": f"/v2/{call.repository}/manifests/{digest}",
            "Docker-Content-Digest": digest,
        }
        if facts.subject is not None:
            headers["OCI-Subject"] = facts.subject
        return Response(201, headers=headers)

    async def delete(self, call: Call) -> Answer:
        """Remove a tag, or a manifest with all its tags."""
        reference = _known_reference(call)
        await self._run(self._storage.remove_manifest, call.repository, reference)
        return Response(202)


def _check_acceptable(call: Call, found: HeldManifest) -> None:
    if not accepts(call.headers.get("accept", ""), found.media_type):
        raise RefusalError(
            "MANIFEST_UNKNOWN",
            f"the manifest is {found.media_type}, which the Accept header does not allow",
            detail={"reference": call.place},
        )


def _known_reference(call: Call) -> str:
    """Return a reference that something may have. RefusalError: nothing can."""
    try:
        return parse_manifest_reference(call.place)
    except RefusalError as exc:
        raise manifest_unknown(call.place[:128]) from exc


async def _read(call: Call) -> bytes:
    length = parse_length(call.headers.get("content-length"))
    if length is not None and length > LIMIT_BYTES:
        raise too_large()  # before it was sent
    try:
        return await read_whole(call.body, LIMIT_BYTES)
    except BodyTooLargeError as exc:
        raise too_large() from exc
