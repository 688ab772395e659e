"""OCI distribution-spec 1.1, "Pull": manifests, blobs, ranges, whether something exists."""

import contextlib
import http.client
import json
from typing import Any

import pytest

from cais.spec.digest import digest_of
from cais.spec.image import DOCKER_MANIFEST, OCI_MANIFEST

NOWHERE = digest_of(b"nobody has pushed this")
METHODS = pytest.mark.parametrize("method", ["GET", "HEAD"])


def test_it_says_that_it_is_a_registry(client: Any) -> None:
    reply = client.ask("GET", "/v2/")
    assert reply.status == 200
    assert reply.headers["docker-distribution-api-version"] == "registry/2.0"


@METHODS
def test_a_manifest_comes_as_it_was_pushed(client: Any, repository: str, method: str) -> None:
    content = client.push_image(repository, "v1", "v2")
    digest = digest_of(content)
    for reference in ("v1", "v2", digest):
        reply = client.ask(method, f"/v2/{repository}/manifests/{reference}")
        assert reply.status == 200
        assert reply.headers["content-type"] == OCI_MANIFEST
        assert reply.headers["docker-content-digest"] == digest
        assert reply.headers["content-length"] == str(len(content))
        assert reply.body == (content if method == "GET" else b"")


@METHODS
@pytest.mark.parametrize("reference", ["none", NOWHERE, ".invalid", "a" * 129, "%00"])
def test_an_unknown_manifest(client: Any, repository: str, method: str, reference: str) -> None:
    client.push_image(repository, "v1")
    reply = client.ask(method, f"/v2/{repository}/manifests/{reference}")
    assert reply.status == 404
    if method == "GET":
        assert reply.codes == ["MANIFEST_UNKNOWN"]


def test_an_unknown_repository(client: Any) -> None:
    for path in ("manifests/latest", f"manifests/{NOWHERE}", f"blobs/{NOWHERE}", "tags/list"):
        assert client.ask("GET", f"/v2/no/body/{path}").status == 404


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200), ("*/*", 200), ("application/*", 200), (OCI_MANIFEST, 200),
        (f"text/html, {OCI_MANIFEST};q=0.5", 200), (f"{OCI_MANIFEST.upper()}", 200),
        (DOCKER_MANIFEST, 404), ("text/*", 404), (f"{OCI_MANIFEST};q=0", 404),
    ],
)  # fmt: skip
def test_a_tag_s_manifest_is_of_an_accepted_type(
    client: Any, repository: str, accept: str, status: int
) -> None:
    digest = digest_of(client.push_image(repository, "v1"))
    path = f"/v2/{repository}/manifests"
    assert client.ask("GET", f"{path}/v1", Accept=accept).status == status
    assert client.ask("GET", f"{path}/{digest}", Accept=accept).status == 200


def test_accept_may_be_repeated(client: Any, repository: str) -> None:
    """As skopeo and podman do."""
    client.push_image(repository, "v1")
    connection = http.client.HTTPConnection(client.registry.address, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest("GET", f"/v2/{repository}/manifests/v1")
        for kind in (DOCKER_MANIFEST, OCI_MANIFEST):
            connection.putheader("Accept", kind)
        connection.endheaders()
        assert connection.getresponse().status == 200


@METHODS
def test_what_a_client_has_is_not_sent_again(client: Any, repository: str, method: str) -> None:
    digest = digest_of(client.push_image(repository, "v1"))
    for path in ("manifests/v1", f"blobs/{digest_of(b'layer')}"):
        etag = client.ask("GET", f"/v2/{repository}/{path}").headers["etag"]
        if method == "GET":
            reply = client.ask(method, f"/v2/{repository}/{path}", If_None_Match=etag)
            assert (reply.status, reply.body) == (304, b"")
        stale = client.ask(method, f"/v2/{repository}/{path}", If_None_Match=f'"{NOWHERE}"')
        assert stale.status == 200
    assert digest in client.ask("GET", f"/v2/{repository}/manifests/v1").headers["etag"]


@METHODS
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_blob(client: Any, repository: str, method: str, size: int) -> None:
    content = b"x" * size
    digest = client.push_blob(repository, content)
    reply = client.ask(method, f"/v2/{repository}/blobs/{digest}")
    assert reply.status == 200
    assert reply.headers["content-length"] == str(size)
    assert reply.headers["docker-content-digest"] == digest
    assert reply.body == (content if method == "GET" else b"")


@METHODS
def test_an_unknown_blob(client: Any, repository: str, method: str) -> None:
    client.push_blob(repository, b"another")
    reply = client.ask(method, f"/v2/{repository}/blobs/{NOWHERE}")
    assert reply.status == 404
    if method == "GET":
        assert reply.codes == ["BLOB_UNKNOWN"]


def test_a_digest_opens_nothing_in_another_repository(client: Any, repository: str) -> None:
    content = client.push_image(f"{repository}/private", "v1", layers=(b"secret",))
    client.push_blob(repository, b"mine")
    for path in (f"blobs/{digest_of(b'secret')}", f"manifests/{digest_of(content)}"):
        assert client.ask("GET", f"/v2/{repository}/private/{path}").status == 200
        assert client.ask("GET", f"/v2/{repository}/{path}").status == 404
    # Nor is a manifest a blob, or a blob a manifest.
    assert client.ask("GET", f"/v2/{repository}/private/blobs/{digest_of(content)}").status == 404
    path = f"/v2/{repository}/private/manifests/{digest_of(b'secret')}"
    assert client.ask("GET", path).status == 404


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-3", 206, 0, 3), ("bytes=2-", 206, 2, 9), ("bytes=9-9", 206, 9, 9),
        ("bytes=-4", 206, 6, 9), ("bytes=-99", 206, 0, 9), ("bytes=5-99", 206, 5, 9),
        ("bytes=10-", 416, 0, 0), ("bytes=99-100", 416, 0, 0), ("bytes=-0", 416, 0, 0),
        ("bytes=5-4", 200, 0, 9), ("bytes=0-1,3-4", 200, 0, 9), ("lines=0-1", 200, 0, 9),
        ("bytes=", 200, 0, 9), ("bytes=-", 200, 0, 9), ("bytes=a-b", 200, 0, 9),
        ("bytes=1" + "0" * 30 + "-", 200, 0, 9),
    ],
)  # fmt: skip
def test_ranges(
    client: Any, repository: str, asked: str, status: int, first: int, last: int
) -> None:
    content = b"0123456789"
    digest = client.push_blob(repository, content)
    reply = client.ask("GET", f"/v2/{repository}/blobs/{digest}", Range=asked)
    assert reply.status == status
    if status == 416:
        assert reply.headers["content-range"] == "bytes */10"
        return
    assert reply.body == content[first : last + 1]
    assert reply.headers.get("content-range") == (
        f"bytes {first}-{last}/10" if status == 206 else None
    )


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:abc", "sha256:" + "A" * 64, "sha256:" + "a" * 65, "sha512:" + "a" * 128, "x",
        "sha256:..%2f..%2fetc", "sha256:%2e%2e",
    ],
)  # fmt: skip
def test_malformed_digests(client: Any, repository: str, digest: str) -> None:
    client.push_blob(repository, b"x")
    for path in (f"blobs/{digest}", f"referrers/{digest}"):
        reply = client.ask("GET", f"/v2/{repository}/{path}")
        assert reply.status in {400, 404}
        assert json.loads(reply.body)["errors"]
    assert client.ask("GET", f"/v2/{repository}/referrers/sha256:abc").codes == ["DIGEST_INVALID"]
