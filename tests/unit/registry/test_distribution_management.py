"""OCI distribution-spec 1.1, "Content Management", and what the registry may be told not to do."""

from collections.abc import Callable
from typing import Any

import pytest

from cais.spec.digest import digest_of

NOWHERE = digest_of(b"nobody has pushed this")


def test_a_tag_is_deleted_alone(client: Any, repository: str) -> None:
    content = client.push_image(repository, "v1", "v2")
    path = f"/v2/{repository}/manifests"
    assert client.ask("DELETE", f"{path}/v1").status == 202
    assert client.ask("GET", f"{path}/v1").status == 404
    assert client.ask("GET", f"{path}/v2").body == content
    assert client.ask("GET", f"{path}/{digest_of(content)}").body == content


def test_a_manifest_is_deleted_with_its_tags(client: Any, repository: str) -> None:
    content = client.push_image(repository, "v1", "v2")
    other = client.push_image(repository, "v3", layers=(b"other",))
    path = f"/v2/{repository}/manifests"
    assert client.ask("DELETE", f"{path}/{digest_of(content)}").status == 202
    for reference in ("v1", "v2", digest_of(content)):
        assert client.ask("GET", f"{path}/{reference}").status == 404
    assert client.ask("GET", f"{path}/v3").body == other
    assert client.ask("GET", f"/v2/{repository}/tags/list").json()["tags"] == ["v3"]


def test_a_blob_is_deleted_from_one_repository(client: Any, repository: str) -> None:
    digest = client.push_blob(repository, b"blob")
    client.push_blob(f"{repository}/other", b"blob")
    assert client.ask("DELETE", f"/v2/{repository}/blobs/{digest}").status == 202
    assert client.ask("GET", f"/v2/{repository}/blobs/{digest}").status == 404
    assert client.ask("GET", f"/v2/{repository}/other/blobs/{digest}").body == b"blob"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"manifests/{NOWHERE}", "MANIFEST_UNKNOWN"), ("manifests/none", "MANIFEST_UNKNOWN"),
        (f"blobs/{NOWHERE}", "BLOB_UNKNOWN"), ("manifests/.x", "MANIFEST_UNKNOWN"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_not_deleted(
    client: Any, repository: str, path: str, code: str
) -> None:
    client.push_image(repository, "v1")
    for name in (repository, "no/body"):
        reply = client.ask("DELETE", f"/v2/{name}/{path}")
        assert (reply.status, reply.codes) == (404, [code])


def test_what_was_deleted_can_be_pushed_again(client: Any, repository: str) -> None:
    content = client.push_image(repository, "v1")
    client.ask("DELETE", f"/v2/{repository}/manifests/{digest_of(content)}")
    client.ask("DELETE", f"/v2/{repository}/blobs/{digest_of(b'layer')}")
    assert client.put_manifest(repository, "v1", content).codes == ["MANIFEST_BLOB_UNKNOWN"]
    assert client.push_image(repository, "v1") == content
    assert client.ask("GET", f"/v2/{repository}/manifests/v1").body == content


DELETIONS = ["manifests/v1", f"manifests/{NOWHERE}", f"blobs/{digest_of(b'layer')}"]


@pytest.mark.parametrize("options", [{"may_delete": False}, {"may_write": False}])
def test_deleting_can_be_disabled(serve: Callable[..., Any], options: dict[str, bool]) -> None:
    first = serve()
    content = first.push_image("a", "v1")
    first.registry.close()
    client = serve(**options)
    for path in (*DELETIONS, f"manifests/{digest_of(content)}"):
        reply = client.ask("DELETE", f"/v2/a/{path}")
        assert (reply.status, reply.codes) == (405, ["UNSUPPORTED"])
    assert client.ask("GET", "/v2/a/manifests/v1").body == content


def test_a_read_only_registry(serve: Callable[..., Any]) -> None:
    first = serve()
    content = first.push_image("a", "v1")
    location = first.begin("a")
    first.registry.close()
    client = serve(may_write=False)
    for method, target in (
        ("POST", "/v2/a/blobs/uploads/"),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest_of(b'x')}"),
        ("POST", f"/v2/b/blobs/uploads/?mount={digest_of(b'layer')}&from=a"),
        ("PATCH", location),
        ("PUT", f"{location}?digest={digest_of(b'x')}"),
        ("DELETE", location),
        ("PUT", "/v2/a/manifests/v2"),
    ):
        reply = client.ask(method, target, b"x")
        assert (reply.status, reply.codes) == (405, ["UNSUPPORTED"])
    assert client.ask("GET", "/v2/a/manifests/v1").body == content
    assert client.ask("GET", "/v2/a/tags/list").json()["tags"] == ["v1"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/v2/", 405), ("PUT", "/v2/_catalog", 405), ("DELETE", "/v2/a/tags/list", 405),
        ("OPTIONS", "/v2/", 405), ("BREW", "/v2/a/manifests/x", 405), ("GET", "/", 404),
        ("GET", "/v1/search", 404), ("GET", "/v2/a/b/c", 404), ("GET", "/v2/_nothing", 404),
        ("GET", "*", 400), ("GET", "/v2/%zz", 400), ("GET", "/v2/../v2/", 404),
    ],
)  # fmt: skip
def test_what_there_is_not(client: Any, method: str, target: str, status: int) -> None:
    reply = client.ask(method, target)
    assert reply.status == status
    assert reply.codes
    if status == 405:
        assert reply.headers["allow"]
