"""An honest registry of one repository, in memory, whose parts a test can spoil."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cais.spec.digest import digest_of
from cais.spec.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from cais.testing.image_store import config_of, hex_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.testing.scripted_registry import Asked, Reply

PATH = "team/box"
LAYERS = (bytes(1024), bytes(2048))
"""Empty archives: unpacking them needs no privilege."""


class Shelf:
    """What the registry has: blobs by digest, manifests by tag and digest.

    Args:
        layers: of the image ``latest``, lowest first, as they are unpacked.
        packed: the same as its blobs are; None: as they are.
        media_type: of each blob.

    """

    def __init__(
        self,
        layers: Sequence[bytes] = LAYERS,
        packed: Sequence[bytes] | None = None,
        media_type: str = OCI_LAYER,
    ) -> None:
        self.layers = list(packed or layers)
        self.media_type = media_type
        self.config = config_of([hex_digest(layer) for layer in layers])
        self.blobs: dict[str, bytes] = {}
        for content in (self.config, *self.layers):
            self.blobs[digest_of(content)] = content
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.add("latest", OCI_MANIFEST, self.manifest())

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of the image, to be changed and added again."""
        return {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": describe(self.config, OCI_CONFIG),
            "layers": [describe(layer, self.media_type) for layer in self.layers],
        }

    def add(self, name: str, kind: str, document: bytes | Mapping[str, Any]) -> str:
        """Put a manifest or index under a tag, and under its digest, which is returned."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(content)
        self.manifests[name] = self.manifests[digest] = (kind, content)
        return digest

    def answer(self, method: str, target: str, headers: Mapping[str, str]) -> Reply:
        """Answer a request without a body."""
        if target in {"/v2", "/v2/"}:
            return 200, {}, b"{}"
        _, _, rest = target.partition(f"/v2/{PATH}/")
        part, _, name = rest.partition("/")
        if part == "manifests" and name in self.manifests:
            kind, content = self.manifests[name]
            return 200, {"Content-Type": kind, "Docker-Content-Digest": digest_of(content)}, content
        if part == "blobs" and name in self.blobs:
            return _part(self.blobs[name], headers)
        if method == "POST" and name.startswith("uploads/"):
            return self._begin(name)
        code = "MANIFEST_UNKNOWN" if part == "manifests" else "BLOB_UNKNOWN"
        return 404, {}, json.dumps({"errors": [{"code": code, "message": "unknown"}]}).encode()

    def serve(self, asked: Asked) -> Reply:
        """Answer any request; what is pushed is kept."""
        method, target, headers, body = asked
        path, _, query = target.partition("?")
        name = path.rpartition("/")[2]
        if method == "PATCH":
            self.uploads[name] += body
            return 202, {"Location": path}, b""
        if method == "PUT" and name in self.uploads:
            return self._finish(self.uploads.pop(name) + body, parse_qs(query)["digest"][0])
        if method == "PUT":
            return (
                201,
                {"Docker-Content-Digest": self.add(name, headers["content-type"], body)},
                b"",
            )
        return self.answer(method, target, headers)

    def _begin(self, name: str) -> Reply:
        query = parse_qs(name.partition("?")[2])
        if query.get("from", [""])[0] and query["mount"][0] in self.blobs:
            return 201, {}, b""
        upload = f"upload-{len(self.uploads)}-{len(self.blobs)}"
        self.uploads[upload] = b""
        return 202, {"Location": f"/v2/{PATH}/blobs/uploads/{upload}"}, b""

    def _finish(self, content: bytes, digest: str) -> Reply:
        if digest_of(content) != digest:
            return 400, {}, b'{"errors":[{"code":"DIGEST_INVALID","message":"wrong"}]}'
        self.blobs[digest] = content
        return 201, {}, b""


def describe(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return the descriptor of a content."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def _part(content: bytes, headers: Mapping[str, str]) -> Reply:
    begin = headers.get("range", "").removeprefix("bytes=").partition("-")[0]
    if not begin:
        return 200, {}, content
    place = f"bytes {begin}-{len(content) - 1}/{len(content)}"
    return 206, {"Content-Range": place}, content[int(begin) :]
