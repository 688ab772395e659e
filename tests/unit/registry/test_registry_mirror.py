"""The pull-through cache, in front of a registry that does as a test says."""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from cais.registry.server import arrivals
from cais.registry.server.upstream import Upstream
from cais.spec.digest import digest_of
from cais.spec.image import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from cais.testing.scripted_registry import Server, serving

LAYER = bytes(range(256)) * 8000
"""Two megabytes: several pieces."""


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def manifest(*layers: bytes) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, b"{}"),
            "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
        }
    ).encode()


IMAGE = manifest(LAYER)


@dataclass
class Source:
    """What the upstream answers, by path below ``/v2/``; may be changed at any time."""

    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    """Blobs are sent when it is set."""

    server: Server | None = None

    def put_image(self, repository: str, tag: str, content: bytes, *blobs: bytes) -> None:
        for reference in (tag, digest_of(content)):
            headers = {"Content-Type": OCI_MANIFEST}
            self.answers[f"{repository}/manifests/{reference}"] = (200, headers, content)
        for blob in (b"{}", *blobs):
            self.answers[f"{repository}/blobs/{digest_of(blob)}"] = (200, {}, blob)

    def answer(
        self, method: str, target: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        del method, headers
        path = target.removeprefix("/v2/")
        if "/blobs/" in path:
            assert self.gate.wait(60)
        return self.answers.get(path, (404, {}, b"{}") if path else (200, {}, b"{}"))

    def asked(self, part: str) -> int:
        assert self.server is not None
        return sum(part in target for _, target, _ in self.server.seen)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)  # between attempts
    monkeypatch.setattr(arrivals, "_PAUSE_S", 0.0)


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    made.gate.set()
    with serving(made.answer) as made.server:
        made.put_image("a", "v1", IMAGE, LAYER)
        yield made


@pytest.fixture
def mirror(source: Source, serve: Callable[..., Any]) -> Any:
    assert source.server is not None
    return serve(upstream=Upstream(str(source.server.origin)))


def blob_of(repository: str, content: bytes) -> str:
    return f"/v2/{repository}/blobs/{digest_of(content)}"


def test_what_was_asked_for_is_kept(source: Source, mirror: Any) -> None:
    for _ in range(2):
        assert mirror.ask("GET", "/v2/a/manifests/v1").body == IMAGE
        by_digest = mirror.ask("GET", f"/v2/a/manifests/{digest_of(IMAGE)}")
        assert (by_digest.status, by_digest.headers["content-type"]) == (200, OCI_MANIFEST)
        reply = mirror.ask("GET", blob_of("a", LAYER))
        assert (reply.status, reply.body) == (200, LAYER)
        assert reply.headers["content-length"] == str(len(LAYER))
    assert source.asked("/blobs/") == 1
    assert source.asked("/manifests/v1") == 2  # it might have moved
    assert source.asked("/manifests/sha256:") == 0


def test_a_tag_that_moved(source: Source, mirror: Any) -> None:
    assert mirror.ask("GET", "/v2/a/manifests/v1").body == IMAGE
    moved = manifest(b"other")
    source.put_image("a", "v1", moved, b"other")
    assert mirror.ask("GET", "/v2/a/manifests/v1").body == moved
    del source.answers["a/manifests/v1"]
    reply = mirror.ask("GET", "/v2/a/manifests/v1")
    assert (reply.status, reply.codes) == (404, ["MANIFEST_UNKNOWN"])


@pytest.mark.parametrize("status", [401, 403, 429])
def test_an_upstream_that_refuses(source: Source, mirror: Any, status: int) -> None:
    """What is here is served; what is not is refused for the upstream's reason."""
    mirror.ask("GET", "/v2/a/manifests/v1")
    mirror.ask("GET", blob_of("a", LAYER))
    refusal = json.dumps({"errors": [{"code": "DENIED", "message": "no"}]}).encode()
    for path in list(source.answers):
        source.answers[path] = (status, {}, refusal)
    source.answers["a/manifests/v2"] = (status, {}, refusal)
    assert mirror.ask("GET", "/v2/a/manifests/v1").body == IMAGE
    assert mirror.ask("GET", blob_of("a", LAYER)).body == LAYER
    reply = mirror.ask("GET", "/v2/a/manifests/v2")
    assert (reply.status, reply.codes) == (502 if status == 401 else status, ["DENIED"])


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refused_name_makes_no_other_stale(source: Source, mirror: Any, status: int) -> None:
    """Who asks for a name that is wrong or private keeps nobody from what moved since."""
    mirror.ask("GET", "/v2/a/manifests/v1")
    source.answers["typo/manifests/v1"] = (status, {}, b"{}")
    assert mirror.ask("GET", "/v2/typo/manifests/v1").status >= 400
    moved = manifest(b"other")
    source.put_image("a", "v1", moved, b"other")
    assert mirror.ask("GET", "/v2/a/manifests/v1").body == moved


@pytest.mark.parametrize("status", [429, 500, 503, 521])
def test_an_ailing_upstream_is_left_alone(source: Source, mirror: Any, status: int) -> None:
    """What is here is served without asking, whatever name it was that it failed for."""
    mirror.ask("GET", "/v2/a/manifests/v1")
    source.answers["b/manifests/v1"] = (status, {}, b"{}")
    assert mirror.ask("GET", "/v2/b/manifests/v1").status >= 400
    asked = source.asked("/manifests/")
    assert mirror.ask("GET", "/v2/a/manifests/v1").body == IMAGE
    assert source.asked("/manifests/") == asked


def test_one_download_for_all_who_wait(source: Source, mirror: Any) -> None:
    source.put_image("b", "v1", IMAGE, LAYER)
    for repository in ("a", "b"):
        mirror.ask("GET", f"/v2/{repository}/manifests/v1")
    source.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(mirror.ask, "GET", blob_of("ab"[number % 2], LAYER)) for number in range(8)
        ]
        while not source.asked("/blobs/"):
            pass
        source.gate.set()
        assert all(each.result(60).body == LAYER for each in asked)
    assert source.asked("/blobs/") == 1
    for repository in ("a", "b"):
        assert mirror.ask("HEAD", blob_of(repository, LAYER)).status == 200


@pytest.mark.parametrize("fault", ["other", "longer", "shorter", "missing"])
def test_what_is_not_the_blob_is_not_passed_on(source: Source, mirror: Any, fault: str) -> None:
    """A client never gets all of it, and the cache keeps nothing."""
    mirror.ask("GET", "/v2/a/manifests/v1")
    path = f"a/blobs/{digest_of(LAYER)}"
    bad = {"other": LAYER[:-1] + b"x", "longer": LAYER + b"x", "shorter": LAYER[:-1]}
    if fault == "missing":
        del source.answers[path]
    else:
        source.answers[path] = (200, {}, bad[fault])
    got = b""
    try:
        reply = mirror.ask("GET", blob_of("a", LAYER))
        got = reply.body if reply.status == 200 else b""
        assert fault != "missing" or reply.status == 404
    except OSError as exc:
        got = getattr(exc, "partial", b"")
    except Exception as exc:  # noqa: BLE001 - http.client.IncompleteRead is no OSError
        got = getattr(exc, "partial", b"")
    assert len(got) < len(LAYER)
    source.answers[path] = (200, {}, LAYER)
    assert mirror.ask("GET", blob_of("a", LAYER)).body == LAYER


async def test_the_last_byte_waits_for_the_digest() -> None:
    download = arrivals.Download(digest_of(b"x"), 10, lambda _: None)
    download._progress(10)
    assert await download.beyond(0) == 9
    last = asyncio.ensure_future(download.beyond(9))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not last.done()
    download._task.set_result(None)  # verified
    download._finish(download._task)
    assert await last == 10


def test_a_size_is_known_before_the_blob(source: Source, mirror: Any) -> None:
    mirror.ask("GET", "/v2/a/manifests/v1")
    reply = mirror.ask("HEAD", blob_of("a", LAYER))
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(LAYER)))
    assert source.asked("/blobs/") == 0


def test_only_what_a_manifest_needs_is_fetched(source: Source, mirror: Any) -> None:
    for method in ("GET", "HEAD"):
        assert mirror.ask(method, blob_of("a", LAYER)).status == 404
        assert mirror.ask(method, blob_of("b", LAYER)).status == 404
    assert source.asked("/blobs/") == 0


def test_it_cannot_be_pushed_to(mirror: Any) -> None:
    for method, target in (
        ("POST", "/v2/a/blobs/uploads/"), ("PUT", "/v2/a/manifests/v2"),
    ):  # fmt: skip
        reply = mirror.ask(method, target, b"x")
        assert (reply.status, reply.codes) == (405, ["UNSUPPORTED"])


def test_what_is_kept_can_be_deleted(source: Source, mirror: Any) -> None:
    mirror.ask("GET", "/v2/a/manifests/v1")
    target = f"/v2/a/manifests/{digest_of(IMAGE)}"
    assert mirror.ask("DELETE", target).status == 202
    assert mirror.ask("GET", target).body == IMAGE
    assert source.asked("/manifests/sha256:") == 1


def test_lists_are_the_upstream_s(source: Source, mirror: Any) -> None:
    tags = json.dumps({"name": "a", "tags": ["b", "A", "c"]}).encode()
    source.answers["a/tags/list"] = (200, {}, tags)
    assert mirror.ask("GET", "/v2/a/tags/list").json()["tags"] == ["A", "b", "c"]
    assert mirror.ask("GET", "/v2/a/tags/list?n=1&last=A").json()["tags"] == ["b"]
    assert mirror.ask("GET", "/v2/none/tags/list").codes == ["NAME_UNKNOWN"]
    about = [{**descriptor(OCI_MANIFEST, b"s"), "artifactType": "a/b", "annotations": {"k": "v"}}]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": about}).encode()
    source.answers[f"a/referrers/{digest_of(IMAGE)}"] = (200, {}, index)
    target = f"/v2/a/referrers/{digest_of(IMAGE)}"
    assert mirror.ask("GET", target).json()["manifests"] == about
    assert mirror.ask("GET", f"{target}?artifactType=c%2Fd").json()["manifests"] == []
    source.answers["a/tags/list"] = (403, {}, b"")
    mirror.ask("GET", "/v2/a/manifests/v1")
    assert mirror.ask("GET", "/v2/a/tags/list").json()["tags"] == ["v1"]
    assert mirror.ask("GET", "/v2/_catalog").json() == {"repositories": ["a"]}


def test_an_upstream_that_is_gone(serve: Callable[..., Any]) -> None:
    gone = Source()
    with serving(gone.answer) as gone.server:
        gone.gate.set()
        gone.put_image("a", "v1", IMAGE, LAYER)
        for _, headers, _ in gone.answers.values():
            headers["Connection"] = "close"  # or an old one would still be answered
        mirror = serve(upstream=Upstream(str(gone.server.origin)))
        for path in ("/v2/a/manifests/v1", blob_of("a", LAYER)):
            mirror.ask("GET", path)
    for _ in range(2):
        assert mirror.ask("GET", "/v2/a/manifests/v1").body == IMAGE
        assert mirror.ask("GET", blob_of("a", LAYER)).body == LAYER
    reply = mirror.ask("GET", blob_of("a", b"{}"))
    assert (reply.status, reply.codes) == (503, ["UNAVAILABLE"])
