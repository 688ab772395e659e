"""Pushes: what is sent, in which form, and what is not sent again."""

from __future__ import annotations

import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from cais.images import archive, retries
from cais.images.pushing import PARALLEL, push
from cais.images.retries import retried
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.errors import (
    DeniedByRegistryError,
    RegistryBusyError,
    RegistryUnreachableError,
    error_of,
)
from cais.registry.origin import parse_url
from cais.registry.repository import Repository
from cais.spec.digest import Digest, digest_of
from cais.spec.image import OCI_LAYER_GZIP, OCI_MANIFEST
from cais.spec.reference import parse_reference
from cais.testing.image_store import docker_archive, left_over, open_image_store
from cais.testing.registry_shelf import LAYERS, PATH, Shelf
from cais.testing.scripted_registry import answering, transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cais.images.store import ImageStore
    from cais.testing.scripted_registry import Asked, Reply

NAME = f"example.com/{PATH}:v1"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path) as opened:
        archive.load(io.BytesIO(docker_archive(LAYERS, [NAME])), opened)
        yield opened


class EmptyShelf(Shelf):
    """A registry that has nothing, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs.clear()
        self.manifests.clear()
        self.asked: list[Asked] = []

    def serve(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return super().serve(asked)

    def pushed(self, tag: str = "v1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.manifests[tag][1])
        return found


class Noted(list[str]):
    """The statuses of a push."""

    def __call__(self, message: Mapping[str, Any]) -> None:
        if not message.get("progressDetail"):
            self.append(message["status"])


def push_to(
    shelf: Shelf,
    store: ImageStore,
    name: str = NAME,
    *,
    with_foreign: bool = False,
    parallel: int = PARALLEL,
) -> tuple[Digest, Noted]:
    said, cancel = Noted(), Cancel()
    reference = parse_reference(name)
    with answering(shelf.serve) as server, transport() as carrier:
        auth = Authenticator(carrier, server.origin, ANONYMOUS)
        target = Repository(carrier, server.origin, PATH, auth, cancel, can_push=True)
        record = store.resolve(NAME)
        done = push(
            store, record, target, reference,
            report=said, cancel=cancel, with_foreign=with_foreign, parallel=parallel,
        )  # fmt: skip
    return done.digest, said


def test_plain_layers_go_as_gzip(store: ImageStore) -> None:
    shelf = EmptyShelf()
    digest, said = push_to(shelf, store)
    assert said == ["Preparing", "Preparing", "Pushed", "Pushed"]
    layers = shelf.pushed()["layers"]
    assert {layer["mediaType"] for layer in layers} == {OCI_LAYER_GZIP}
    for layer, plain in zip(layers, LAYERS, strict=True):
        packed = shelf.blobs[layer["digest"]]
        assert (gzip.decompress(packed), len(packed)) == (plain, layer["size"])
    assert shelf.pushed()["config"]["digest"] == store.resolve(NAME).id
    assert store.resolve(NAME).repo_digests == (f"example.com/{PATH}@{digest}",)
    assert digest_of(shelf.manifests["v1"][1]) == digest


def test_what_has_no_turn_yet_says_that_it_waits(store: ImageStore) -> None:
    _, said = push_to(EmptyShelf(), store, parallel=1)
    assert said == ["Preparing", "Preparing", "Waiting", "Pushed", "Pushed"]


def test_packed_twice_alike(store: ImageStore, tmp_path: Path) -> None:
    """Another store, which remembers nothing, makes the same bytes."""
    digest, _ = push_to(EmptyShelf(), store)
    with open_image_store(tmp_path / "other") as other:
        archive.load(io.BytesIO(docker_archive(LAYERS, [NAME])), other)
        assert push_to(EmptyShelf(), other)[0] == digest


def test_what_is_there_is_not_compressed_again(store: ImageStore) -> None:
    shelf = EmptyShelf()
    digest, _ = push_to(shelf, store)
    shelf.asked.clear()
    again, said = push_to(shelf, store, f"example.com/{PATH}:v2")
    assert again == digest
    assert said[2:] == ["Layer already exists", "Layer already exists"]
    assert {asked.method for asked in shelf.asked} == {"HEAD", "PUT"}
    assert shelf.pushed("v2") == shelf.pushed("v1")


def test_layers_are_taken_over_from_where_they_were_seen(store: ImageStore) -> None:
    shelf = EmptyShelf()
    digest, _ = push_to(shelf, store)
    kept = dict(shelf.blobs)

    class Other(EmptyShelf):
        """Another repository, which sees the first one's blobs only by mounting."""

        def _begin(self, name: str) -> Reply:
            if "from=team%2Fbox" in name:
                wanted = name.partition("mount=")[2].partition("&")[0].replace("%3A", ":")
                self.blobs[wanted] = kept[wanted]
                return 201, {}, b""
            return super()._begin(name)

    again, said = push_to(Other(), store, "example.com/team/copy:v1")
    assert again == digest
    assert said[2:] == ["Mounted from team/box"] * 2


def test_a_registry_that_mounts_nothing_is_sent_all(store: ImageStore) -> None:
    push_to(EmptyShelf(), store)

    class Refusing(EmptyShelf):
        def _begin(self, name: str) -> Reply:
            if "from=" in name:
                return 403, {}, b""
            return super()._begin(name)

    _, said = push_to(Refusing(), store, "example.com/team/copy:v1")
    assert said[2:] == ["Pushed", "Pushed"]


def test_what_a_registry_knows_goes_as_it_is(store: ImageStore) -> None:
    """An image keeps its digest wherever it goes, even with plain layers."""
    record = store.resolve(NAME)
    store.add_digest(record.id, "elsewhere.example.com/x", record.manifest)
    shelf = EmptyShelf()
    assert push_to(shelf, store)[0] == record.manifest
    assert set(shelf.blobs) == {record.id, *(layer.blob for layer in record.layers)}


def test_an_image_that_is_removed_meanwhile_is_pushed_all_the_same(store: ImageStore) -> None:
    """Its blobs stay until then; that a registry knows it is of no interest any more."""

    class Removing(EmptyShelf):
        def serve(self, asked: Asked) -> Reply:
            if asked.method == "PUT" and "/manifests/" in asked.target:
                store.delete(NAME)
            return super().serve(asked)

    shelf = Removing()
    digest, _ = push_to(shelf, store)
    assert digest_of(shelf.manifests["v1"][1]) == digest
    assert left_over(store) == []


def test_foreign_layers_stay_where_they_are(store: ImageStore, tmp_path: Path) -> None:
    source = Shelf()
    manifest = source.manifest()
    manifest["layers"][0] |= {"mediaType": FOREIGN, "urls": ["http://192.0.2.1/layer"]}
    digest = source.add("latest", OCI_MANIFEST, manifest)
    with open_image_store(tmp_path / "pulled") as other:
        record = store.resolve(NAME)
        with other.content.leases.open() as lease:
            for content in (*source.blobs.values(), source.manifests["latest"][1]):
                other.content.write(content, lease)
            archive.load(io.BytesIO(docker_archive(LAYERS, [NAME])), other)
        shelf = EmptyShelf()
        rewritten = _with_manifest(other, Digest(digest))
        assert rewritten == record.id
        _, said = push_to(shelf, other)
        assert "Skipped foreign layer" in said
        assert shelf.pushed()["layers"][0] == manifest["layers"][0]
        assert manifest["layers"][0]["digest"] not in shelf.blobs
        push_to(shelf, other, with_foreign=True)
        assert manifest["layers"][0]["digest"] in shelf.blobs


def _with_manifest(store: ImageStore, manifest: Digest) -> str:
    """Have an image come under another manifest, as from a registry."""
    record = store.resolve(NAME)
    with store.catalog._database.transaction() as connection:
        connection.execute("UPDATE images SET manifest = ? WHERE id = ?", (manifest, record.id))
    return record.id


def busy(seconds: float) -> RegistryBusyError:
    error = error_of(429, b"", "PUT")
    assert isinstance(error, RegistryBusyError)
    error.retry_after_s = seconds
    return error


class Unhurried(Cancel):
    """Waits that take no time."""

    waited = 0.0

    def sleep(self, seconds: float) -> None:
        self.waited += seconds


def test_what_fails_for_the_moment_is_tried_again() -> None:
    unreachable = RegistryUnreachableError("put", parse_url("http://a.example.com/"), "EOF")
    failures: list[Exception] = [unreachable, busy(7), error_of(503, b"", "PUT")]
    said: list[str] = []

    def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    cancel = Unhurried()
    assert retried(attempt, cancel, said.append) == "done"
    assert cancel.waited == len(said) == 5 + 10 + 15
    assert said[:5] == [
        *("Retrying in 5 seconds", "Retrying in 4 seconds", "Retrying in 3 seconds"),
        *("Retrying in 2 seconds", "Retrying in 1 second"),
    ]


def test_retry_after_is_heard_but_not_for_ever() -> None:
    for asked, waited in ((30, 30), (10_000, 60)):
        failures = [busy(asked)]
        cancel = Unhurried()
        retried(lambda failures=failures: _raise_next(failures), cancel, lambda _: None)  # type: ignore[misc]
        assert cancel.waited == waited


def _raise_next(failures: list[RegistryBusyError]) -> None:
    if failures:
        raise failures.pop()


def test_a_refusal_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSE_S", 0)
    calls = []

    def attempt() -> None:
        calls.append(1)
        raise error_of(403, b"", "PUT")

    with pytest.raises(DeniedByRegistryError):
        retried(attempt, Cancel(), lambda _: None)
    assert len(calls) == 1


def test_an_upload_that_breaks_off_begins_again(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PAUSE_S", 0)

    class Ailing(EmptyShelf):
        failures = 2

        def serve(self, asked: Asked) -> Reply:
            if asked.method == "PATCH" and self.failures:
                self.failures -= 1
                return 503, {}, b"{}"
            return super().serve(asked)

    shelf = Ailing()
    push_to(shelf, store)
    assert len(shelf.blobs) == 3


class Challenging(EmptyShelf):
    """A registry whose first answer to a stream asks for a token."""

    def serve(self, asked: Asked) -> Reply:
        if asked.target.startswith("/token"):
            return 200, {}, b'{"token":"t"}'
        if asked.method == "PATCH" and "authorization" not in asked.headers:
            realm = f"http://{asked.headers['host']}/token"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}, b"{}"
        return super().serve(asked)


class Closing(EmptyShelf):
    """A registry that closes the connection instead of its first answer to a stream."""

    has_closed = False

    def serve(self, asked: Asked) -> Reply:
        if asked.method == "PATCH" and not self.has_closed:
            self.has_closed = True
            raise ConnectionError
        return super().serve(asked)


@pytest.mark.parametrize("kind", [Challenging, Closing])
def test_a_stream_that_is_asked_for_again_begins_again(
    kind: type[EmptyShelf], store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compressed for the first request is used up by then."""
    monkeypatch.setattr(retries, "PAUSE_S", 0)
    shelf = kind()
    digest, _ = push_to(shelf, store, parallel=1)
    assert digest_of(shelf.manifests["v1"][1]) == digest
    packed = [gzip.decompress(shelf.blobs[layer["digest"]]) for layer in shelf.pushed()["layers"]]
    assert packed == list(LAYERS)
