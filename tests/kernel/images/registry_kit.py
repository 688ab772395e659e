"""Two images for a registry of ours, and a client that says anything."""

from __future__ import annotations

import http.client
import json
import os

from cais.spec.digest import digest_of
from cais.spec.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

CONFIG = b"{}"
LAYERS = [os.urandom(70_000), os.urandom(300_000)]


class Client:
    """Says everything on a connection of its own: the server may be gone any moment."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(
        self, method: str, target: str, body: bytes = b"", kind: str = "application/octet-stream"
    ) -> tuple[int, str, bytes]:
        """Return the status, where to go on, and the body."""
        connection = http.client.HTTPConnection(self._address, timeout=100)
        try:
            connection.request(method, target, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Location", ""), answer.read()
        finally:
            connection.close()

    def expect(self, status: int, method: str, target: str, *words: object) -> str:
        found, location, body = self.ask(method, target, *words)  # type: ignore[arg-type]
        assert found == status, (method, target, found, body)
        return location


def manifest(layers: list[bytes]) -> bytes:
    def describe(kind: str, content: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}

    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    parts = [describe(OCI_LAYER, layer) for layer in layers]
    return json.dumps(
        {**document, "config": describe(OCI_CONFIG, CONFIG), "layers": parts}
    ).encode()


FIRST, SECOND = manifest(LAYERS[:1]), manifest(LAYERS)
