"""Pulls from registries that are honest, broken, and hostile."""

from __future__ import annotations

import gzip
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from cais.errors import CaisError, DataLossError, DeadlineError, InvalidArgumentError, NotFoundError
from cais.images import downloads
from cais.images.downloads import Downloads
from cais.images.policy import Policy
from cais.images.pulling import Pull, PulledImage
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.repository import Repository
from cais.spec.digest import Digest, digest_of
from cais.spec.image import (
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from cais.spec.platform import Platform, host_platform
from cais.spec.reference import parse_reference
from cais.testing.image_store import left_over, open_image_store
from cais.testing.registry_shelf import LAYERS, Shelf, describe
from cais.testing.scripted_registry import Server, serving, transport
from cais.testing.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cais.images.store import ImageStore
    from cais.testing.scripted_registry import Reply


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path) as opened:
        yield opened


class Puller:
    """Pulls from one server into one store, sharing downloads."""

    def __init__(self, store: ImageStore, server: Server, carrier: Any) -> None:
        self.store = store
        self.downloads = Downloads(store.content)
        self._server, self._carrier = server, carrier
        self.messages: list[Mapping[str, Any]] = []

    def pull(
        self,
        name: str = "example.com/team/box",
        platform: Platform | None = None,
        cancel: Cancel | None = None,
        report: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> PulledImage:
        cancel = cancel or Cancel()
        origin = self._server.origin
        auth = Authenticator(self._carrier, origin, ANONYMOUS)
        source = Repository(self._carrier, origin, "team/box", auth, cancel)
        wanted = parse_reference(name).with_default_tag()
        return Pull(
            self.store, self.downloads, source, wanted,
            platform=platform, policy=Policy("none"), cancel=cancel,
            report=report or self.messages.append,
        ).run()  # fmt: skip


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def puller(store: ImageStore, shelf: Shelf) -> Iterator[Puller]:
    with serving(shelf.answer) as server, transport() as carrier:
        yield Puller(store, server, carrier)


def test_an_image_comes_whole(puller: Puller, shelf: Shelf) -> None:
    pulled = puller.pull()
    assert pulled.is_new
    record = puller.store.resolve("example.com/team/box")
    assert record.id == pulled.id == digest_of(shelf.config)
    assert record.repo_digests == (f"example.com/team/box@{pulled.digest}",)
    assert puller.messages[0] == {"status": "Pulling from team/box", "id": "latest"}
    assert puller.messages[-1] == {"status": f"Digest: {pulled.digest}"}
    assert not puller.pull().is_new


def test_a_digest_gives_no_tag(puller: Puller) -> None:
    digest = puller.pull().digest
    puller.store.delete("example.com/team/box", force=True)
    puller.pull(f"example.com/team/box@{digest}")
    assert puller.store.resolve(f"example.com/team/box@{digest}").repo_tags == ()


@pytest.mark.parametrize("name", ["example.com/team/box", "example.com/team/box@{digest}"])
def test_an_image_has_all_its_names_at_once(
    puller: Puller, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A prune of what has no name may come as soon as the image is there."""
    store, register = puller.store, puller.store.register
    digest = digest_of(shelf.manifests["latest"][1])

    def register_and_look(*arguments: Any) -> Any:
        moved = register(*arguments)
        digests = [one.repo_digests for one in store.list()]
        assert digests == [(f"example.com/team/box@{digest}",)]
        return moved

    monkeypatch.setattr(store, "register", register_and_look)
    assert puller.pull(name.format(digest=digest)).is_new
    assert not puller.pull(name.format(digest=digest)).is_new


def test_who_removes_an_image_as_soon_as_it_is_there_disturbs_no_pull(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, register = puller.store, puller.store.register

    def register_and_remove(*arguments: Any) -> Any:
        moved = register(*arguments)
        store.delete("example.com/team/box")
        return moved

    monkeypatch.setattr(store, "register", register_and_remove)
    assert puller.pull().is_new
    assert store.list() == []


def test_of_several_platforms_the_right_one(puller: Puller, shelf: Shelf) -> None:
    host = host_platform()
    wanted = digest_of(shelf.manifests["latest"][1])
    entries = [
        {"digest": digest_of(b"a"), "platform": {"os": "unknown", "architecture": "unknown"}},
        {"digest": digest_of(b"other"), "platform": {"os": "plan9", "architecture": "mips"}},
        {"digest": wanted, "platform": {"os": host.os, "architecture": host.architecture}},
    ]  # fmt: skip
    for entry in entries:
        entry.update(mediaType=OCI_MANIFEST, size=1)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    digest = shelf.add("latest", OCI_INDEX, json.dumps(index).encode())
    assert puller.pull().digest == digest
    with pytest.raises(NotFoundError, match="no matching manifest for linux/s390x in the manifest"):
        puller.pull(platform=Platform("linux", "s390x"))


def in_an_index(shelf: Shelf, kind: str, *more: dict[str, Any], **fields: Any) -> str:
    """Put the image in an index, after other entries."""
    entry = describe(shelf.manifests["latest"][1], OCI_MANIFEST, **fields)
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": [*more, entry]}
    return shelf.add("latest", kind, index)


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_in_both_forms(puller: Puller, shelf: Shelf, kind: str) -> None:
    host = host_platform()
    digest = in_an_index(shelf, kind, platform={"os": host.os, "architecture": host.architecture})
    assert puller.pull().digest == digest


def test_an_attestation_is_no_image(puller: Puller, shelf: Shelf) -> None:
    """One that claims the right platform, or none, is still passed over."""
    host = host_platform()
    here = {"os": host.os, "architecture": host.architecture}
    reference = {"vnd.docker.reference.type": "attestation-manifest"}
    others = [
        describe(b"attestation", OCI_MANIFEST, platform=here, annotations=reference),
        describe(b"artifact", OCI_MANIFEST, artifactType="application/x"),
    ]
    in_an_index(shelf, OCI_INDEX, *others)
    assert puller.pull().id == digest_of(shelf.config)


def test_an_entry_without_a_platform_is_better_than_none(puller: Puller, shelf: Shelf) -> None:
    in_an_index(shelf, OCI_INDEX, describe(b"x", OCI_MANIFEST, platform={"os": "plan9"}))
    assert puller.pull().id == digest_of(shelf.config)


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (OCI_LAYER_GZIP, gzip.compress),
        (DOCKER_LAYER_GZIP, gzip.compress),
        (OCI_LAYER_ZSTD, zstandard.compress),
        (OCI_LAYER_GZIP, zstandard.compress),  # what it is counts, not what it is called
    ],
)
def test_compressed_layers(
    store: ImageStore, media_type: str, pack: Callable[[bytes], bytes]
) -> None:
    shelf = Shelf(LAYERS, [pack(layer) for layer in LAYERS], media_type)
    with serving(shelf.answer) as server, transport() as carrier:
        Puller(store, server, carrier).pull()
    record = store.resolve("example.com/team/box")
    assert [layer.blob for layer in record.layers] == [digest_of(blob) for blob in shelf.layers]


def test_schema_1_is_refused_in_dockers_words(puller: Puller, shelf: Shelf) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    shelf.add("latest", kind, {"schemaVersion": 1, "fsLayers": [], "history": []})
    with pytest.raises(
        InvalidArgumentError,
        match=r"schema 1 support is disabled .* author of example.com/team/box:latest to upgrade",
    ):
        puller.pull()


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def test_cve_2020_15157_the_urls_of_a_layer_are_never_asked(puller: Puller, shelf: Shelf) -> None:
    with serving(lambda *_: (200, {}, LAYERS[0])) as elsewhere:
        manifest = shelf.manifest()
        manifest["layers"][0] |= {"mediaType": FOREIGN, "urls": [f"{elsewhere.origin}/layer"]}
        shelf.add("latest", OCI_MANIFEST, manifest)
        removed = shelf.blobs.pop(digest_of(LAYERS[0]))
        with pytest.raises(NotFoundError, match="is foreign: the registry does not have it, and"):
            puller.pull()
        assert_nothing_left(puller)
        shelf.blobs[digest_of(LAYERS[0])] = removed
        assert puller.pull().is_new
        assert elsewhere.seen == []


def test_what_is_here_is_not_fetched_again(puller: Puller, shelf: Shelf) -> None:
    """The same image under another manifest: its configuration says that it is the same."""
    puller.pull()
    manifest = shelf.manifest()
    manifest["annotations"] = {"made": "again"}
    digest = shelf.add("again", OCI_MANIFEST, manifest)
    puller._server.seen.clear()
    assert puller.pull("example.com/team/box:again").digest == digest
    assert [target for _, target, _ in puller._server.seen] == ["/v2/team/box/manifests/again"]
    record = puller.store.resolve("example.com/team/box:again")
    assert f"example.com/team/box@{digest}" in record.repo_digests


@pytest.mark.parametrize("part", ["configuration", "manifest", "layer"])
def test_what_was_lost_comes_again(puller: Puller, part: str) -> None:
    puller.pull()
    record = puller.store.resolve("example.com/team/box")
    lost = {
        "configuration": record.id,
        "manifest": record.manifest,
        "layer": record.layers[1].blob,
    }[part]
    puller.store.content._path(Digest(lost)).unlink()
    puller.pull()
    assert puller.store.content.stat(Digest(lost))


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def cut(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        *(("configuration", flipped), ("configuration", cut)),
        *(("manifest", flipped), ("manifest", cut), ("layer", cut)),
    ],
)
@pytest.mark.parametrize("name", ["latest", "again"])
def test_what_was_damaged_comes_again(
    puller: Puller, shelf: Shelf, part: str, damage: Callable[[bytes], bytes], name: str
) -> None:
    """By the same manifest, or by another one of the same image."""
    shelf.add("again", OCI_MANIFEST, {**shelf.manifest(), "annotations": {"made": "again"}})
    puller.pull()
    store = puller.store
    before = store.resolve("example.com/team/box")
    parts = {"configuration": before.id, "manifest": before.manifest}
    path = store.content._path(Digest(parts.get(part, before.layers[1].blob)))
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))
    store._config.cache_clear()  # as after a restart
    puller.pull(f"example.com/team/box:{name}")
    record = store.resolve(f"example.com/team/box:{name}")
    assert record.id == before.id
    for blob in (record.id, record.manifest, *(layer.blob for layer in record.layers)):
        with store.content.open_blob(Digest(blob)) as stored:
            assert digest_of(stored.read()) == blob
    puller._server.seen.clear()
    puller.pull(f"example.com/team/box:{name}")
    assert len(puller._server.seen) == 1  # whole, and known to be


def ambiguous() -> list[tuple[str, bytes]]:
    manifest = Shelf().manifest()
    both = {**manifest, "manifests": []}
    return [
        (OCI_MANIFEST, json.dumps(both).encode()),
        (OCI_INDEX, json.dumps(both).encode()),
        (OCI_INDEX, json.dumps(manifest).encode()),
        (DOCKER_INDEX, json.dumps({**manifest, "mediaType": DOCKER_INDEX}).encode()),
        (OCI_MANIFEST, json.dumps({**manifest, "mediaType": OCI_INDEX}).encode()),
        (OCI_MANIFEST, b'{"schemaVersion":2,"layers":[],"layers":[]}'),
        (OCI_MANIFEST, json.dumps(manifest).encode() + b"x"),
        (OCI_MANIFEST, b"\xef\xbb\xbf" + json.dumps(manifest).encode()),
        ("application/json", json.dumps({**manifest, "schemaVersion": 1}).encode()),
        (OCI_MANIFEST, b"[]"),
        (OCI_MANIFEST, b"null"),
    ]


@pytest.mark.parametrize(("kind", "content"), ambiguous())
def test_cve_2021_41190_a_document_with_two_meanings(
    puller: Puller, shelf: Shelf, kind: str, content: bytes
) -> None:
    shelf.add("latest", kind, content)
    with pytest.raises(InvalidArgumentError):
        puller.pull()
    assert_nothing_left(puller)


@pytest.mark.parametrize(
    "digest",
    [
        *("", "sha256:", "sha256:../../x", "md5:" + "0" * 32, "SHA256:" + "0" * 64, "x" * 10_000),
        *(7, None),
    ],
)
def test_cve_2021_21285_digests_that_are_none(puller: Puller, shelf: Shelf, digest: Any) -> None:
    for part in ("config", "layers"):
        manifest = shelf.manifest()
        target = manifest[part] if part == "config" else manifest[part][0]
        target["digest"] = digest
        shelf.add("latest", OCI_MANIFEST, manifest)
        with pytest.raises(CaisError):
            puller.pull()
    assert_nothing_left(puller)


@pytest.mark.parametrize("size", [-1, 0, 1, 1025, 2**63, 1.5, "1024", None])
def test_sizes_that_are_wrong(puller: Puller, shelf: Shelf, size: Any) -> None:
    manifest = shelf.manifest()
    manifest["layers"][0]["size"] = size
    shelf.add("latest", OCI_MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(CaisError):
        puller.pull()
    assert_nothing_left(puller)


def test_digests_by_another_algorithm_are_named(puller: Puller, shelf: Shelf) -> None:
    """The image-spec asks for sha512 if possible; it is not, here."""
    manifest = shelf.manifest()
    manifest["layers"][0]["digest"] = "sha512:" + "a" * 128
    shelf.add("latest", OCI_MANIFEST, manifest)
    with pytest.raises(CaisError, match="unsupported digest algorithm: sha512"):
        puller.pull()
    assert_nothing_left(puller)
    with pytest.raises(CaisError, match="unsupported digest algorithm: sha512"):
        parse_reference("example.com/team/box@sha512:" + "a" * 128)


def test_other_bytes_than_were_named(puller: Puller, shelf: Shelf) -> None:
    shelf.blobs[digest_of(LAYERS[0])] = b"x" * 1024
    with pytest.raises(DataLossError):
        puller.pull()
    assert_nothing_left(puller)


def test_a_layer_with_another_diff_id(puller: Puller, shelf: Shelf) -> None:
    shelf.layers = [LAYERS[1], LAYERS[0]]
    shelf.add("latest", OCI_MANIFEST, json.dumps(shelf.manifest()).encode())
    with pytest.raises(DataLossError):
        puller.pull()
    assert_nothing_left(puller)


def test_a_download_goes_on_where_it_broke_off(
    store: ImageStore, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_RETRY_PAUSE_S", 0)
    ranges: list[str | None] = []
    target = f"/v2/team/box/blobs/{digest_of(LAYERS[1])}"

    def script(method: str, path: str, headers: dict[str, str]) -> Reply:
        status, fields, content = shelf.answer(method, path, headers)
        if path == target:
            ranges.append(headers.get("range"))
            if len(ranges) < 3:
                broken = {**fields, "Content-Length": str(len(content)), "Connection": "close"}
                return status, broken, content[:500]
        return status, fields, content

    with serving(script) as server, transport() as carrier:
        Puller(store, server, carrier).pull()
    assert ranges == [None, "bytes=500-", "bytes=1000-"]


def test_what_has_no_slot_says_that_it_waits(store: ImageStore, shelf: Shelf) -> None:
    is_let_go, said = threading.Event(), []
    lowest, upper = (digest_of(layer) for layer in LAYERS[:2])

    def script(method: str, path: str, headers: dict[str, str]) -> Reply:
        if path.endswith(lowest):
            assert is_let_go.wait(PATIENCE_S)
        return shelf.answer(method, path, headers)

    def report(message: Mapping[str, Any]) -> None:
        said.append((message.get("id"), message["status"]))
        if message["status"] == "Waiting":
            is_let_go.set()

    with serving(script) as server, transport() as carrier:
        puller = Puller(store, server, carrier)
        puller.downloads = Downloads(store.content, parallel=1)
        puller.pull(report=report)
    assert said[1:4] == [
        (lowest.partition(":")[2][:12], "Pulling fs layer"),
        (upper.partition(":")[2][:12], "Pulling fs layer"),
        (upper.partition(":")[2][:12], "Waiting"),
    ]
    assert [status for _, status in said].count("Pull complete") == len(LAYERS)


def test_a_break_is_told(store: ImageStore, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_RETRY_PAUSE_S", 1)
    asked: list[str] = []

    def script(method: str, path: str, headers: dict[str, str]) -> Reply:
        status, fields, content = shelf.answer(method, path, headers)
        if path.endswith(digest_of(LAYERS[0])):
            asked.append(path)
            if len(asked) == 1:
                broken = {**fields, "Content-Length": str(len(content)), "Connection": "close"}
                return status, broken, content[:10]
        return status, fields, content

    with serving(script) as server, transport() as carrier:
        puller = Puller(store, server, carrier)
        puller.pull()
    assert "Retrying in 1 second" in [one["status"] for one in puller.messages]


def test_many_pulls_download_once(puller: Puller) -> None:
    with ThreadPoolExecutor(20) as pool:
        pulled = list(pool.map(lambda _: puller.pull(report=lambda _: None), range(20)))
    assert len({image.id for image in pulled}) == 1
    asked = [target for _, target, _ in puller._server.seen if "/blobs/" in target]
    assert len(asked) == len(set(asked)) == 3


def test_whoever_leaves_leaves_the_others_their_download(store: ImageStore, shelf: Shelf) -> None:
    """Nine of ten cancel in the middle of a layer; the tenth gets the image."""
    go_on, digest = threading.Event(), digest_of(LAYERS[1])
    slow = f"/v2/team/box/blobs/{digest}"

    def script(method: str, path: str, headers: dict[str, str]) -> Reply:
        if path == slow:
            go_on.wait(PATIENCE_S)
        return shelf.answer(method, path, headers)

    with serving(script) as server, transport() as carrier, ThreadPoolExecutor(10) as pool:
        puller = Puller(store, server, carrier)
        cancels = [Cancel() for _ in range(10)]
        pulls = [
            pool.submit(puller.pull, cancel=cancel, report=lambda _: None) for cancel in cancels
        ]
        running = puller.downloads._running
        wait_until(lambda: digest in running and len(running[digest]._lines) == len(pulls))
        for cancel in cancels[1:]:
            cancel.set()
        for pull in pulls[1:]:
            with pytest.raises(DeadlineError):
                pull.result(PATIENCE_S)
        go_on.set()
        assert pulls[0].result(PATIENCE_S).is_new
    assert sum(target == slow for _, target, _ in server.seen) == 1


def test_when_all_leave_nothing_is_left(store: ImageStore, shelf: Shelf) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def script(method: str, path: str, headers: dict[str, str]) -> Reply:
        if "/blobs/" in path:
            begun.set()
            go_on.wait(PATIENCE_S)
        return shelf.answer(method, path, headers)

    with serving(script) as server, transport() as carrier, ThreadPoolExecutor(1) as pool:
        puller = Puller(store, server, carrier)
        cancel = Cancel()
        pull = pool.submit(puller.pull, cancel=cancel)
        assert begun.wait(PATIENCE_S)
        cancel.set()
        with pytest.raises(DeadlineError):
            pull.result(PATIENCE_S)
        go_on.set()
        assert_nothing_left(puller)


def assert_nothing_left(puller: Puller) -> None:
    assert puller.store.list() == []
    assert not left_over(puller.store)
