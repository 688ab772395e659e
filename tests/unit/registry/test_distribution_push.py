"""OCI distribution-spec 1.1, "Push": blobs in every way, mounts, manifests, subjects."""

import contextlib
import http.client
import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from cais.spec.digest import digest_of
from cais.spec.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    LIMIT_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)

NOWHERE = digest_of(b"nobody has pushed this")
CONTENT = bytes(range(256)) * 40
DIGEST = digest_of(CONTENT)


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def manifest(config: bytes, *layers: bytes, **extra: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
        **extra,
    }
    return json.dumps({name: value for name, value in document.items() if value != ""}).encode()


def index(*manifests: bytes, **extra: Any) -> bytes:
    entries = [descriptor(OCI_MANIFEST, each) for each in manifests]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **extra}
    ).encode()


def stored(client: Any, repository: str, digest: str = DIGEST) -> bytes | None:
    reply = client.ask("GET", f"/v2/{repository}/blobs/{digest}")
    return reply.body if reply.status == 200 else None


# Blobs


def test_post_then_put(client: Any, repository: str) -> None:
    reply = client.ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert reply.status == 202
    location = reply.headers["location"]
    assert re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", location)
    assert reply.headers["content-length"] == "0"
    reply = client.ask("PUT", f"{location}?digest={DIGEST}", CONTENT)
    assert reply.status == 201
    assert reply.headers["docker-content-digest"] == DIGEST
    assert client.ask("GET", reply.headers["location"]).body == CONTENT
    assert client.ask("GET", location).status == 404  # the session is over


def test_single_post(client: Any, repository: str) -> None:
    reply = client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={DIGEST}", CONTENT)
    assert reply.status == 201
    assert client.ask("GET", reply.headers["location"]).body == CONTENT


def test_chunks(client: Any, repository: str) -> None:
    location = client.begin(repository)
    for first in range(0, 6000, 2000):
        chunk = CONTENT[first : first + 2000]
        reply = client.ask("PATCH", location, chunk, Content_Range=f"{first}-{first + 1999}")
        assert reply.status == 202
        assert reply.headers["range"] == f"0-{first + 1999}"
        location = reply.headers["location"]
    last = f"6000-{len(CONTENT) - 1}"
    target = f"{location}?digest={DIGEST}"
    assert client.ask("PUT", target, CONTENT[6000:], Content_Range=last).status == 201
    assert stored(client, repository) == CONTENT


def test_the_last_chunk_may_be_patched(client: Any, repository: str) -> None:
    location = client.begin(repository)
    everything = f"0-{len(CONTENT) - 1}"
    assert client.ask("PATCH", location, CONTENT, Content_Range=everything).status == 202
    assert client.ask("PUT", f"{location}?digest={DIGEST}").status == 201
    assert stored(client, repository) == CONTENT


def test_a_stream_of_unknown_length(client: Any, registry: Any, repository: str) -> None:
    location = client.begin(repository)
    connection = http.client.HTTPConnection(registry.address, timeout=60)
    with contextlib.closing(connection):
        pieces = (CONTENT[n : n + 1000] for n in range(0, len(CONTENT), 1000))
        connection.request("PATCH", location, pieces, encode_chunked=True)
        assert connection.getresponse().status == 202
    assert client.ask("PUT", f"{location}?digest={DIGEST}").status == 201
    assert stored(client, repository) == CONTENT


@pytest.mark.parametrize("given", ["1-10", "5-14", "11-20", "0-9", "x-y", "5-3", "bytes 10-19/*"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_chunks_out_of_order(client: Any, repository: str, method: str, given: str) -> None:
    location = client.begin(repository)
    assert client.ask("PATCH", location, CONTENT[:10], Content_Range="0-9").status == 202
    target = f"{location}?digest={DIGEST}" if method == "PUT" else location
    reply = client.ask(method, target, CONTENT[10:20], Content_Range=given)
    assert reply.status == 416
    assert reply.codes == ["RANGE_INVALID"]
    # A GET tells where to go on, and it does go on.
    reply = client.ask("GET", location)
    assert (reply.status, reply.headers["range"]) == (204, "0-9")
    rest = f"10-{len(CONTENT) - 1}"
    target = f"{reply.headers['location']}?digest={DIGEST}"
    assert client.ask("PUT", target, CONTENT[10:], Content_Range=rest).status == 201


def test_the_first_chunk_begins_at_zero(client: Any, repository: str) -> None:
    location = client.begin(repository)
    reply = client.ask("PATCH", location, CONTENT[:10], Content_Range="1-10")
    assert (reply.status, reply.headers["range"]) == (416, "0-0")


def test_lengths_that_contradict_each_other(client: Any, registry: Any, repository: str) -> None:
    location = client.begin(repository)
    reply = client.ask("PATCH", location, CONTENT[:10], Content_Range="0-10")
    assert (reply.status, reply.codes) == (400, ["SIZE_INVALID"])
    assert client.ask("GET", location).status == 204
    connection = http.client.HTTPConnection(registry.address, timeout=60)
    with contextlib.closing(connection):
        headers = {"Content-Range": "0-10"}
        connection.request("PATCH", location, iter([CONTENT]), headers, encode_chunked=True)
        assert connection.getresponse().status == 400
    assert client.ask("GET", location).status == 404  # what came cannot be told from what not


def test_what_arrived_before_the_connection_broke_is_kept(
    client: Any, registry: Any, repository: str
) -> None:
    location = client.begin(repository)
    with socket.create_connection((registry.origin.host, registry.origin.port), 60) as sock:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        sock.sendall(head.encode() + CONTENT[:100])
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    reply = client.ask("GET", location)
    assert (reply.status, reply.headers["range"]) == (204, "0-99")
    assert client.ask("PUT", f"{location}?digest={DIGEST}", CONTENT[100:]).status == 201
    assert stored(client, repository) == CONTENT


def test_two_writers_of_one_upload(client: Any, registry: Any, repository: str) -> None:
    location = client.begin(repository)
    with socket.create_connection((registry.origin.host, registry.origin.port), 60) as sock:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        sock.sendall(head.encode() + CONTENT[:100])
        while client.ask("GET", location).headers["range"] != "0-99":
            pass
        for method in ("PATCH", "PUT", "DELETE"):
            target = f"{location}?digest={DIGEST}"
            reply = client.ask(method, target, None if method == "DELETE" else b"intruder")
            assert (reply.status, reply.codes) == (409, ["BLOB_UPLOAD_INVALID"])
        sock.sendall(CONTENT[100:])
        assert sock.recv(4096).startswith(b"HTTP/1.1 202 ")
    assert client.ask("PUT", f"{location}?digest={DIGEST}").status == 201
    assert stored(client, repository) == CONTENT


@pytest.mark.parametrize("way", ["POST", "PUT", "PATCH"])
def test_a_wrong_digest_keeps_nothing(client: Any, repository: str, way: str) -> None:
    if way == "POST":
        reply = client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={NOWHERE}", CONTENT)
    else:
        location = client.begin(repository)
        body: bytes | None = CONTENT
        if way == "PATCH":
            client.ask("PATCH", location, body)
            body = None
        reply = client.ask("PUT", f"{location}?digest={NOWHERE}", body)
        assert client.ask("GET", location).status == 404
    assert (reply.status, reply.codes) == (400, ["DIGEST_INVALID"])
    assert stored(client, repository, NOWHERE) is None
    assert stored(client, repository) is None


@pytest.mark.parametrize("digest", ["", "sha256:abc", "sha512:" + "a" * 128, "md5:x", "x"])
def test_what_is_no_digest(client: Any, repository: str, digest: str) -> None:
    location = client.begin(repository)
    for method, target in (
        ("PUT", f"{location}?digest={digest}"),
        ("PUT", location),
        ("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}"),
        ("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from=a"),
    ):
        reply = client.ask(method, target, CONTENT)
        assert (reply.status, reply.codes) == (400, ["DIGEST_INVALID"])


def test_uploads_are_cancelled(client: Any, repository: str) -> None:
    location = client.begin(repository)
    client.ask("PATCH", location, CONTENT)
    assert client.ask("DELETE", location).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        reply = client.ask(method, f"{location}?digest={DIGEST}")
        assert (reply.status, reply.codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])


@pytest.mark.parametrize("upload", ["x", "..%2f..%2fx", "%2e%2e", "a" * 300, "%00"])
def test_unknown_uploads(client: Any, repository: str, upload: str) -> None:
    assert client.ask("GET", f"/v2/{repository}/blobs/uploads/{upload}").status in {400, 404}


def test_an_upload_belongs_to_its_repository(client: Any, repository: str) -> None:
    location = client.begin(repository)
    other = location.replace(repository, f"{repository}/other")
    assert client.ask("PUT", f"{other}?digest={DIGEST}", CONTENT).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "UPPER", "a//b", "a/../b", "%2e%2e", "a/%2e%2e/b", "-a", "a-", "a..b", "_a", "a" * 256,
        "a%2f%2e%2e%2fb", "a%00b", "a%0ab", "%ff", "a b", "a%",
    ],
)  # fmt: skip
def test_invalid_names(client: Any, name: str) -> None:
    target = f"/v2/{name}/blobs/uploads/".replace(" ", "%20")
    assert client.ask("POST", target).status == 400
    assert client.ask("GET", target.replace("blobs/uploads/", "tags/list")).status == 400


@pytest.mark.parametrize(
    "name",
    ["a", "a/b/c/d/e", "a__b", "a---b", "a.b-c_d", "blobs/uploads", "manifests/tags", "a" * 255],
)
def test_valid_names(client: Any, name: str) -> None:
    assert stored(client, name, client.push_blob(name, CONTENT)) == CONTENT


# Mounts


def test_mount(client: Any, repository: str) -> None:
    content = CONTENT + repository.encode()
    digest = client.push_blob(f"{repository}/source", content)
    target = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}/source"
    reply = client.ask("POST", target)
    assert reply.status == 201
    assert client.ask("GET", reply.headers["location"]).body == content
    # Without "from", from wherever it is.
    reply = client.ask("POST", f"/v2/{repository}/any/blobs/uploads/?mount={digest}")
    assert reply.status == 201
    assert stored(client, f"{repository}/any", digest) == content


@pytest.mark.parametrize("source", ["&from=no/body", ""])
def test_a_mount_that_cannot_be_becomes_an_upload(
    client: Any, repository: str, source: str
) -> None:
    content = f"{repository}{source}".encode()
    digest = digest_of(content)
    target = f"/v2/{repository}/blobs/uploads/?mount={digest}{source}"
    reply = client.ask("POST", target)
    assert reply.status == 202
    assert client.ask("PUT", f"{reply.headers['location']}?digest={digest}", content).status == 201


def test_a_mount_asks_the_repository_it_names(client: Any, repository: str) -> None:
    digest = client.push_blob(f"{repository}/source", CONTENT)
    target = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}/another"
    assert client.ask("POST", target).status == 202
    assert stored(client, repository) is None


# Manifests


def test_a_manifest_is_kept_byte_by_byte(client: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    content = b"  " + manifest(b"{}").replace(b'": ', b'"  :  ') + b"\n\n"
    reply = client.put_manifest(repository, "v1", content)
    assert reply.status == 201
    assert reply.headers["docker-content-digest"] == digest_of(content)
    assert client.ask("GET", reply.headers["location"]).body == content


@pytest.mark.parametrize(
    "media_type",
    [
        OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX,
        "application/vnd.example.thing.v1+json", f"{OCI_MANIFEST}; charset=utf-8",
    ],
)  # fmt: skip
def test_media_types(client: Any, repository: str, media_type: str) -> None:
    child = client.push_image(repository)
    bare = media_type.partition(";")[0]
    make = index if bare in {OCI_INDEX, DOCKER_INDEX} else manifest
    part = child if make is index else b"{}"
    content = make(part, mediaType=bare)
    assert client.put_manifest(repository, "v1", content, media_type).status == 201
    reply = client.ask("GET", f"/v2/{repository}/manifests/v1")
    assert (reply.headers["content-type"], reply.body) == (bare, content)


def test_a_manifest_without_layers_or_media_type(client: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    content = manifest(b"{}", mediaType="")
    assert client.put_manifest(repository, "v1", content).status == 201
    assert client.ask("PUT", f"/v2/{repository}/manifests/v2", content).status == 201
    reply = client.ask("GET", f"/v2/{repository}/manifests/v2")
    assert reply.headers["content-type"] == OCI_MANIFEST


def test_a_tag_moves(client: Any, repository: str) -> None:
    old = client.push_image(repository, "v1")
    new = client.push_image(repository, "v1", layers=(b"another",))
    assert client.ask("GET", f"/v2/{repository}/manifests/v1").body == new
    assert client.ask("GET", f"/v2/{repository}/manifests/{digest_of(old)}").body == old


def test_parts_that_are_missing(client: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    client.push_blob(f"{repository}/other", b"elsewhere")
    child = client.push_image(f"{repository}/other")
    for content, kind in (
        (manifest(b"no config"), OCI_MANIFEST),
        (manifest(b"{}", b"no layer"), OCI_MANIFEST),
        (manifest(b"{}", b"elsewhere"), OCI_MANIFEST),
        (index(child), OCI_INDEX),
    ):
        reply = client.put_manifest(repository, "v1", content, kind)
        assert (reply.status, reply.codes) == (400, ["MANIFEST_BLOB_UNKNOWN"])
        assert client.ask("GET", f"/v2/{repository}/manifests/v1").status == 404


def test_layers_that_are_elsewhere_by_design(client: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    layer = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"far")
    content = manifest(b"{}", layers=[{**layer, "urls": ["https://example.com/far"]}])
    assert client.put_manifest(repository, "v1", content).status == 201


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x", b"[]", b"{}", b'{"schemaVersion":1}', b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"schemaVersion":2,"layers":7}', b'{"schemaVersion":2,"config":{"digest":"x","size":1}}',
        b'{"schemaVersion":2,"subject":{"digest":"sha512:' + b"a" * 128 + b'","size":1}}',
        b'{"schemaVersion":2,"layers":[{"digest":"' + DIGEST.encode() + b'","size":-1}]}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_manifest(client: Any, repository: str, content: bytes) -> None:
    reply = client.put_manifest(repository, "v1", content)
    assert (reply.status, reply.codes) == (400, ["MANIFEST_INVALID"])


def test_declarations_that_contradict_the_manifest(client: Any, repository: str) -> None:
    client.push_image(repository)
    for content, kind in (
        (manifest(b"{}"), DOCKER_MANIFEST),
        (manifest(b"{}", mediaType="x y"), ""),
        (manifest(b"{}", mediaType=""), "application/vnd.docker.distribution.manifest.v1+json"),
        (manifest(b"{}", b"layer").replace(b'"size": 5', b'"size": 6'), OCI_MANIFEST),
    ):
        reply = client.put_manifest(repository, "v1", content, kind)
        assert (reply.status, reply.codes) == (400, ["MANIFEST_INVALID"])


def test_a_manifest_has_the_digest_it_is_pushed_by(client: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    reply = client.put_manifest(repository, NOWHERE, manifest(b"{}"))
    assert (reply.status, reply.codes) == (400, ["DIGEST_INVALID"])
    assert client.put_manifest(repository, "sha256:abc", manifest(b"{}")).status == 400


@pytest.mark.parametrize("tag", ["-a", ".a", "a" * 129, "a%20b", "%00", "a%3Fb"])
def test_invalid_tags(client: Any, repository: str, tag: str) -> None:
    client.push_blob(repository, b"{}")
    reply = client.put_manifest(repository, tag, manifest(b"{}"))
    assert (reply.status, reply.codes) == (400, ["TAG_INVALID"])


def test_the_size_of_manifests_is_limited(client: Any, registry: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    content = manifest(b"{}")
    largest = content + b" " * (LIMIT_BYTES - len(content))
    assert client.put_manifest(repository, "v1", largest).status == 201
    assert client.put_manifest(repository, "v2", largest + b" ").status == 413
    connection = http.client.HTTPConnection(registry.address, timeout=60)
    with contextlib.closing(connection):
        pieces = (b" " * 100_000 for _ in range(60))
        target = f"/v2/{repository}/manifests/v2"
        connection.request("PUT", target, pieces, encode_chunked=True)
        assert connection.getresponse().status == 413
    with socket.create_connection((registry.origin.host, registry.origin.port), 60) as sock:
        sock.sendall(
            f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**18}\r\n\r\n".encode()
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")  # before anything was sent
    assert client.ask("GET", target).status == 404


# Subjects


def test_a_subject_is_acknowledged_and_need_not_exist(client: Any, repository: str) -> None:
    client.push_blob(repository, b"{}")
    for content, kind in (
        (manifest(b"{}", subject=descriptor(OCI_MANIFEST, b"later")), OCI_MANIFEST),
        (index(subject=descriptor(OCI_MANIFEST, b"later")), OCI_INDEX),
    ):
        reply = client.put_manifest(repository, digest_of(content), content, kind)
        assert reply.status == 201
        assert reply.headers["oci-subject"] == digest_of(b"later")
    assert "oci-subject" not in client.put_manifest(repository, "v1", manifest(b"{}")).headers


# Limits


def test_uploads_have_a_limit(serve: Callable[..., Any]) -> None:
    client = serve(max_uploads=2)
    locations = [client.begin("a"), client.begin("a")]
    reply = client.ask("POST", "/v2/a/blobs/uploads/")
    assert (reply.status, reply.codes) == (429, ["TOOMANYREQUESTS"])
    assert reply.headers["retry-after"]
    client.ask("DELETE", locations[0])
    assert client.begin("a")
