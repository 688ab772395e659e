"""A registry of ours on loopback, and a client that can say anything."""

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cais.registry.server.serving import RegistryOptions, RunningRegistry
from cais.spec.digest import Digest, digest_of
from cais.spec.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST


@dataclass
class Reply:
    """A parsed answer; ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        return [error["code"] for error in self.json()["errors"]]


class Client:
    """Asks one registry."""

    def __init__(self, registry: RunningRegistry) -> None:
        self.registry = registry

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.registry.address, timeout=60)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, target, body, fields)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def push_blob(self, repository: str, content: bytes) -> Digest:
        digest = digest_of(content)
        reply = self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content)
        assert reply.status == 201, reply
        return digest

    def begin(self, repository: str) -> str:
        reply = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert reply.status == 202, reply
        return reply.headers["location"]

    def put_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str = OCI_MANIFEST
    ) -> Reply:
        target = f"/v2/{repository}/manifests/{reference}"
        return self.ask("PUT", target, content, Content_Type=media_type)

    def push_image(
        self, repository: str, *tags: str, layers: tuple[bytes, ...] = (b"layer",), **extra: Any
    ) -> bytes:
        """Push an image; return its manifest."""
        config = self.push_blob(repository, b"{}")
        for layer in layers:
            self.push_blob(repository, layer)
        content = manifest(descriptor(OCI_CONFIG, b"{}"), layers, **extra)
        assert config == digest_of(b"{}")
        for reference in tags or (digest_of(content),):
            reply = self.put_manifest(repository, reference, content)
            assert reply.status == 201, reply
        return content


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def manifest(config: dict[str, Any], layers: tuple[bytes, ...] = (), **extra: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config,
            "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
            **extra,
        }
    ).encode()


def index(*manifests: bytes, **extra: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(OCI_MANIFEST, each) for each in manifests],
            **extra,
        }
    ).encode()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    root = tmp_path_factory.mktemp("registry") / "root"
    with RunningRegistry(RegistryOptions(root)) as running:
        yield running


@pytest.fixture
def client(registry: RunningRegistry) -> Client:
    return Client(registry)


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    name = request.node.name.partition("[")[0].lower().replace("_", "-")
    return f"tests/{name}-{abs(hash(request.node.name)):x}"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start registries with options of the test's own; they end with it."""
    with contextlib.ExitStack() as stack:

        def start(root: Path = tmp_path / "root", **options: Any) -> Client:
            registry = RunningRegistry(RegistryOptions(root, **options))
            return Client(stack.enter_context(registry))

        yield start
