"""What comes of pulls from a registry that means harm: rows D2 to D7 of the threat sheet.

D2 and parts of D3 and D5 stand in ``test_pulling.py``. After each failure: no image, no name, no
blob, no snapshot, no unfinished ingest, no descriptor, no thread; and an honest pull works.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import CaisError, DeadlineError, NotFoundError
from cais.images import downloads
from cais.images.downloads import Downloads
from cais.images.policy import Policy
from cais.images.pulling import Pull, PulledImage
from cais.registry.auth import Authenticator
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS
from cais.registry.repository import Repository
from cais.spec.digest import digest_of
from cais.spec.image import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from cais.spec.reference import InvalidReferenceError, parse_reference
from cais.testing.image_store import left_over, open_image_store
from cais.testing.registry_shelf import LAYERS, PATH, Shelf, describe
from cais.testing.scripted_registry import serving, transport
from cais.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.images.store import ImageStore
    from cais.registry.origin import Origin
    from cais.registry.transport import Transport
    from cais.spec.digest import Digest
    from cais.testing.scripted_registry import Reply, Script

NAME = f"example.com/{PATH}"
BLOB = f"/v2/{PATH}/blobs/{digest_of(LAYERS[1])}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with open_image_store(tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_RETRY_PAUSE_S", 0)


class Client:
    """Pulls into one store, sharing downloads, as one daemon's pulls do."""

    def __init__(self, store: ImageStore, carrier: Transport, origin: Origin) -> None:
        self._store, self._carrier, self._origin = store, carrier, origin
        self._downloads = Downloads(store.content)

    def waiting_for(self, digest: Digest) -> int:
        """Return how many pulls share a download."""
        running = self._downloads._running.get(digest)
        return len(running._lines) if running else 0

    def pull(self, name: str = NAME, cancel: Cancel | None = None) -> PulledImage:
        cancel = cancel or Cancel()
        auth = Authenticator(self._carrier, self._origin, ANONYMOUS)
        source = Repository(self._carrier, self._origin, PATH, auth, cancel)
        return Pull(
            self._store, self._downloads, source, parse_reference(name).with_default_tag(),
            platform=None, policy=Policy("none"), report=lambda _: None, cancel=cancel,
        ).run()  # fmt: skip


def pull(store: ImageStore, script: Script, name: str = NAME) -> PulledImage:
    with serving(script) as server, transport() as carrier:
        return Client(store, carrier, server.origin).pull(name)


def assert_refused_without_a_trace(store: ImageStore, script: Script, name: str = NAME) -> None:
    with pytest.raises(CaisError):
        pull(store, script, name)
    assert not left_over(store)
    assert pull(store, Shelf().answer).is_new


# D3: documents of a wrong shape


def configurations() -> list[Any]:
    right = json.loads(Shelf().config)
    rootfs = right["rootfs"]
    wrong_roots = [
        *(None, [], {}, {"type": "layers"}, {**rootfs, "diff_ids": None}),
        *({**rootfs, "diff_ids": rootfs["diff_ids"][:1]}, {**rootfs, "diff_ids": [7, 8]}),
        {**rootfs, "diff_ids": ["sha256:../../x"] * 2},
        {**rootfs, "diff_ids": rootfs["diff_ids"][:1] * 2},
        {**rootfs, "type": "image"},
    ]
    others = [{"config": 7}, {"history": "none"}, {"created": 7}, {"architecture": ["amd64"]}]
    return [
        *(None, [], "text", {}),
        *({**right, "rootfs": rootfs} for rootfs in wrong_roots),
        *({**right, **other} for other in others),
    ]


@pytest.mark.parametrize("configuration", configurations())
def test_d3_configurations(store: ImageStore, configuration: Any) -> None:
    shelf = Shelf()
    content = json.dumps(configuration).encode()
    shelf.blobs[digest_of(content)] = content
    shelf.add("latest", OCI_MANIFEST, {**shelf.manifest(), "config": describe(content, OCI_CONFIG)})
    assert_refused_without_a_trace(store, shelf.answer)


@pytest.mark.parametrize(
    "change",
    [
        *({"layers": None}, {"layers": {}}, {"layers": "x"}, {"layers": [None]}, {"layers": []}),
        *({"config": None}, {"config": []}, {"config": {}}, {"schemaVersion": "2"}),
        {"layers": [describe(layer, "x") for layer in LAYERS] * 64},
        {"config": describe(b"x" * 5_000_000, OCI_CONFIG)},
    ],
    ids=str,
)
def test_d3_manifests(store: ImageStore, change: dict[str, Any]) -> None:
    shelf = Shelf()
    shelf.add("latest", OCI_MANIFEST, {**shelf.manifest(), **change})
    assert_refused_without_a_trace(store, shelf.answer)


def test_d3_a_longer_history_is_no_harm(store: ImageStore) -> None:
    shelf = Shelf()
    content = json.dumps({**json.loads(shelf.config), "history": [{}] * 1000}).encode()
    shelf.blobs[digest_of(content)] = content
    shelf.add("latest", OCI_MANIFEST, {**shelf.manifest(), "config": describe(content, OCI_CONFIG)})
    image = pull(store, shelf.answer)
    assert store.history(image.id)


# D5: contents that are not what was named


def spoiled(part: str, spoil: Callable[[bytes], bytes]) -> Script:
    shelf = Shelf()
    named = digest_of(shelf.config if part == "config" else LAYERS[1])
    shelf.blobs[named] = spoil(shelf.blobs[named])
    return shelf.answer


@pytest.mark.parametrize("part", ["config", "layer"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:-1] + b"x",
        lambda _: b"",
    ],
    ids=["shorter", "longer", "other", "nothing"],
)
def test_d5_blobs(store: ImageStore, part: str, spoil: Callable[[bytes], bytes]) -> None:
    assert_refused_without_a_trace(store, spoiled(part, spoil))


def test_d5_the_right_files_in_other_bytes(store: ImageStore) -> None:
    """As long as what was named, and unpacking to the same: still not what was named."""
    named, other = (gzip.compress(LAYERS[0], mtime=when) for when in (0, 1))
    assert len(named) == len(other)
    shelf = Shelf(LAYERS, [named, gzip.compress(LAYERS[1])], OCI_LAYER_GZIP)
    shelf.blobs[digest_of(named)] = other
    assert_refused_without_a_trace(store, shelf.answer)


def test_d5_a_manifest_of_another_digest(store: ImageStore) -> None:
    shelf = Shelf()
    other = digest_of(b"other")
    shelf.manifests[other] = shelf.manifests["latest"]
    assert_refused_without_a_trace(store, shelf.answer, f"{NAME}@{other}")


def test_d5_a_manifest_with_another_digest_in_its_head(store: ImageStore) -> None:
    shelf = Shelf()

    def script(method: str, target: str, headers: dict[str, str]) -> Reply:
        status, fields, content = shelf.answer(method, target, headers)
        return status, {**fields, "Docker-Content-Digest": digest_of(b"x")}, content

    assert_refused_without_a_trace(store, script)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"no gzip", b"\x28\xb5\x2f\xfd"])
def test_d5_layers_that_are_no_archives(store: ImageStore, content: bytes) -> None:
    shelf = Shelf(LAYERS, [content, LAYERS[1]], OCI_LAYER_GZIP)
    assert_refused_without_a_trace(store, shelf.answer)


def breaking(shelf: Shelf, *, restarting: bool) -> tuple[Script, list[str | None]]:
    """Break a layer off twice; answer the rest from where it was, or from the start."""
    ranges: list[str | None] = []

    def script(method: str, target: str, headers: dict[str, str]) -> Reply:
        if target != BLOB:
            return shelf.answer(method, target, headers)
        ranges.append(headers.get("range"))
        kept = {} if restarting else headers
        status, fields, content = shelf.answer(method, target, kept)
        assert isinstance(content, bytes)
        if len(ranges) > 2:
            return status, fields, content
        broken = {**fields, "Content-Length": str(len(content)), "Connection": "close"}
        return status, broken, content[:500]

    return script, ranges


@pytest.mark.parametrize("restarting", [False, True])
def test_d5_what_breaks_off_is_verified_as_a_whole(store: ImageStore, *, restarting: bool) -> None:
    script, ranges = breaking(Shelf(), restarting=restarting)
    assert pull(store, script).is_new
    second = "bytes=500-"
    assert ranges == [None, second, second if restarting else "bytes=1000-"]


def test_d5_a_part_of_other_bytes_is_found_out(store: ImageStore) -> None:
    """What follows a broken connection comes from another file."""
    shelf = Shelf()
    script, ranges = breaking(shelf, restarting=False)

    def other(method: str, target: str, headers: dict[str, str]) -> Reply:
        if target == BLOB and ranges:
            shelf.blobs[digest_of(LAYERS[1])] = b"x" * len(LAYERS[1])
        return script(method, target, headers)

    assert_refused_without_a_trace(store, other)


def test_d5_a_connection_that_always_breaks(store: ImageStore) -> None:
    """It is given up, though each time a little more comes."""
    shelf, asked = Shelf(), itertools.count()

    def script(method: str, target: str, headers: dict[str, str]) -> Reply:
        status, fields, content = shelf.answer(method, target, headers)
        if target == BLOB and isinstance(content, bytes):
            next(asked)
            broken = {**fields, "Content-Length": str(len(content)), "Connection": "close"}
            return status, broken, content[:10]
        return status, fields, content

    assert_refused_without_a_trace(store, script)
    assert next(asked) == 5


# D6: pulls that are given up


def test_d6_a_hundred_pulls_of_which_ninety_nine_are_cancelled(store: ImageStore) -> None:
    """One download; the last one gets the image; nothing of the others is left."""
    go_on, shelf = threading.Event(), Shelf()

    def script(method: str, target: str, headers: dict[str, str]) -> Reply:
        if target == BLOB:
            go_on.wait(60)
        return shelf.answer(method, target, headers)

    pull_and_forget(store)
    before = counts()
    with serving(script) as server, transport() as carrier, ThreadPoolExecutor(100) as pool:
        client = Client(store, carrier, server.origin)
        cancels = [Cancel() for _ in range(100)]
        pulls = [pool.submit(client.pull, NAME, cancel) for cancel in cancels]
        wait_until(lambda: client.waiting_for(digest_of(LAYERS[1])) == len(pulls))
        for cancel in cancels[:-1]:
            cancel.set()
        for one in pulls[:-1]:
            with pytest.raises(DeadlineError):
                one.result(60)
        go_on.set()
        image = pulls[-1].result(60)
    asked = [target for _, target, _ in server.seen if "/blobs/" in target]
    assert len(asked) == len(set(asked)) == 3
    assert store.resolve(NAME).id == image.id
    kept = set(left_over(store))
    store.collect()
    assert set(left_over(store)) == kept
    wait_until(lambda: all(now <= then for now, then in zip(counts(), before, strict=True)))


def pull_and_forget(store: ImageStore) -> None:
    """Have what lasts as long as the store, such as the thread that empties the bin, begin."""
    pull(store, Shelf([bytes(512)]).answer, NAME)
    store.delete(NAME, force=True)
    store.collect()


def counts() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_d6_a_hundred_pulls_and_nobody_stays(store: ImageStore) -> None:
    begun, go_on, shelf = threading.Event(), threading.Event(), Shelf()

    def script(method: str, target: str, headers: dict[str, str]) -> Reply:
        if target == BLOB:
            begun.set()
            go_on.wait(60)
        return shelf.answer(method, target, headers)

    with serving(script) as server, transport() as carrier, ThreadPoolExecutor(100) as pool:
        client = Client(store, carrier, server.origin)
        cancels = [Cancel() for _ in range(100)]
        pulls = [pool.submit(client.pull, NAME, cancel) for cancel in cancels]
        assert begun.wait(60)
        for cancel in cancels:
            cancel.set()
        for one in pulls:
            with pytest.raises(DeadlineError):
                one.result(60)
        go_on.set()
    assert not left_over(store)
    assert pull(store, Shelf().answer).is_new


# D7: names


def test_d7_a_digest_of_another_repository(store: ImageStore) -> None:
    """A tag beside a digest does not lend it its name: the repository must have the digest."""
    elsewhere = digest_of(b"another repository's")
    with pytest.raises(NotFoundError):
        pull(store, Shelf().answer, f"{NAME}:latest@{elsewhere}")
    assert not left_over(store)


def test_d7_a_tag_beside_a_digest_is_not_given(store: ImageStore) -> None:
    """Nobody has verified that the tag is that digest."""
    shelf = Shelf()
    digest = digest_of(shelf.manifests["latest"][1])
    pull(store, shelf.answer, f"{NAME}:v9@{digest}")
    assert store.resolve(f"{NAME}@{digest}").repo_tags == ()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Example.com/Box",
            "busy\u0431ox",
            "ex\u0430mple.com/box",
            "a/../b",
            "a//b",
            "-a",
            "a/-b",
        ),
        *("box@sha256:0", "box:", "box:a:b", "box@", "a" * 300, "box\n", "http://x/y", "%2e%2e/x"),
    ],
)
def test_d7_names_that_read_like_others(name: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_reference(name)
