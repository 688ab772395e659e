"""OCI distribution-spec 1.1, "Content Discovery": tags, repositories, referrers, in pages."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from cais.registry.server import listings
from cais.spec.digest import digest_of
from cais.spec.image import LIMIT_BYTES, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

NOWHERE = digest_of(b"nobody has pushed this")
TAGS = ["1", "1.0", "A", "a", "B", "latest", "z_", "Zz"]
"""In lexical order without regard to case."""


def walk(client: Any, target: str, member: str) -> list[list[str]]:
    """Follow ``Link`` from page to page."""
    pages = []
    while target:
        reply = client.ask("GET", target)
        assert reply.status == 200
        pages.append(reply.json()[member])
        link = reply.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        target = link.partition("<")[2].partition(">")[0]
    return pages


@pytest.fixture
def tagged(client: Any, repository: str) -> str:
    client.push_image(repository, *sorted(TAGS))
    return f"/v2/{repository}/tags/list"


def test_tags(client: Any, repository: str, tagged: str) -> None:
    reply = client.ask("GET", tagged)
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {"name": repository, "tags": TAGS}
    assert "link" not in reply.headers


@pytest.mark.parametrize(
    ("query", "tags", "goes_on"),
    [
        ("n=3", TAGS[:3], True), ("n=8", TAGS, False), ("n=100", TAGS, False), ("n=0", [], False),
        ("n=2&last=A", ["a", "B"], True), ("n=2&last=B", ["latest", "z_"], True),
        ("last=latest", ["z_", "Zz"], False), ("n=9&last=b", ["latest", "z_", "Zz"], False),
        ("last=Zz", [], False), ("n=", TAGS, False), ("n=2147483647", TAGS, False),
        ("n=1&last=" + "x" * 60_000, ["z_"], True),
    ],
)  # fmt: skip
def test_pages_of_tags(
    client: Any, tagged: str, query: str, tags: list[str], goes_on: bool
) -> None:
    reply = client.ask("GET", f"{tagged}?{query}")
    assert reply.json()["tags"] == tags
    assert ("link" in reply.headers) is goes_on


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "9" * 30])
def test_sizes_of_pages_that_are_none(client: Any, tagged: str, n: str) -> None:
    for target in (tagged, "/v2/_catalog"):
        reply = client.ask("GET", f"{target}?n={n}")
        assert (reply.status, reply.codes) == (400, ["PAGINATION_NUMBER_INVALID"])


def test_links_lead_through_every_tag(client: Any, tagged: str) -> None:
    for size in (1, 3, 8):
        pages = walk(client, f"{tagged}?n={size}", "tags")
        assert [tag for page in pages for tag in page] == TAGS
        assert all(len(page) == size for page in pages[:-1])


def test_there_is_a_limit_to_a_page(
    client: Any, tagged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "TAGS_PAGE", 3)
    assert [len(page) for page in walk(client, tagged, "tags")] == [3, 3, 2]
    assert [len(page) for page in walk(client, f"{tagged}?n=1000", "tags")] == [3, 3, 2]


def test_a_repository_without_tags(client: Any, repository: str) -> None:
    client.push_blob(repository, b"blob")
    reply = client.ask("GET", f"/v2/{repository}/tags/list")
    assert reply.json() == {"name": repository, "tags": []}
    assert client.ask("GET", "/v2/no/body/tags/list").codes == ["NAME_UNKNOWN"]


def test_repositories(serve: Callable[..., Any]) -> None:
    client = serve()
    names = ["a", "a/b", "b", "c-d", "e"]
    for name in reversed(names):
        client.push_image(name)
    client.push_blob("only/blobs", b"blob")
    assert client.ask("GET", "/v2/_catalog").json() == {"repositories": names}
    pages = walk(client, "/v2/_catalog?n=2", "repositories")
    assert pages == [["a", "a/b"], ["b", "c-d"], ["e"]]
    assert client.ask("GET", "/v2/_catalog?n=0").json() == {"repositories": []}


# Referrers


def referrers(client: Any, repository: str, subject: bytes, query: str = "") -> Any:
    reply = client.ask("GET", f"/v2/{repository}/referrers/{digest_of(subject)}{query}")
    assert reply.status == 200
    assert reply.headers["content-type"] == OCI_INDEX
    document = reply.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    return reply


def test_referrers(client: Any, repository: str) -> None:
    subject = client.push_image(repository, "v1")
    about = {"mediaType": OCI_MANIFEST, "digest": digest_of(subject), "size": len(subject)}
    notes = {"org.example.note": "é"}
    signature = client.push_image(
        repository, layers=(b"signature",), subject=about, artifactType="application/signature",
        annotations=notes,
    )  # fmt: skip
    plain = client.push_image(repository, layers=(b"plain",), subject=about)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": about}
    lists = [json.dumps({**document, **more}).encode() for more in ({}, {"artifactType": "x/y"})]
    for each in lists:
        assert client.put_manifest(repository, digest_of(each), each, OCI_INDEX).status == 201
    found = {
        entry["digest"]: entry
        for entry in referrers(client, repository, subject).json()["manifests"]
    }
    assert found == {
        digest_of(signature): {
            "mediaType": OCI_MANIFEST, "digest": digest_of(signature), "size": len(signature),
            "artifactType": "application/signature", "annotations": notes,
        },
        digest_of(plain): {
            "mediaType": OCI_MANIFEST, "digest": digest_of(plain), "size": len(plain),
            "artifactType": OCI_CONFIG,
        },
        digest_of(lists[0]): {
            "mediaType": OCI_INDEX, "digest": digest_of(lists[0]), "size": len(lists[0]),
        },
        digest_of(lists[1]): {
            "mediaType": OCI_INDEX, "digest": digest_of(lists[1]), "size": len(lists[1]),
            "artifactType": "x/y",
        },
    }  # fmt: skip
    for kind, expected in (
        ("application/signature", signature), (OCI_CONFIG, plain), ("x/y", lists[1]),
    ):  # fmt: skip
        query = f"?artifactType={quote(kind, safe='')}"
        reply = referrers(client, repository, subject, query)
        assert reply.headers["oci-filters-applied"] == "artifactType"
        assert [entry["digest"] for entry in reply.json()["manifests"]] == [digest_of(expected)]
    reply = referrers(client, repository, subject, "?artifactType=no/such")
    assert reply.json()["manifests"] == []
    # Of another repository there are none, and a deleted one is none any more.
    assert referrers(client, f"{repository}/other", subject).json()["manifests"] == []
    client.ask("DELETE", f"/v2/{repository}/manifests/{digest_of(plain)}")
    assert digest_of(plain) not in referrers(client, repository, subject).body.decode()


def test_there_may_be_no_referrers(client: Any, repository: str) -> None:
    client.push_image(repository, "v1")
    reply = referrers(client, repository, b"nothing")
    assert reply.json()["manifests"] == []
    assert "oci-filters-applied" not in reply.headers
    assert referrers(client, "no/body", b"nothing").json()["manifests"] == []


@pytest.mark.parametrize("digest", ["x", "sha256:abc", "sha256", NOWHERE + "0"])
def test_referrers_of_what_is_no_digest(client: Any, repository: str, digest: str) -> None:
    reply = client.ask("GET", f"/v2/{repository}/referrers/{digest}")
    assert (reply.status, reply.codes) == (400, ["DIGEST_INVALID"])


@pytest.mark.parametrize(("page", "note"), [(2, 1), (1000, LIMIT_BYTES // 5)])
def test_pages_of_referrers(
    client: Any, repository: str, page: int, note: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a page, or more than a client takes for an index, is continued by ``Link``."""
    monkeypatch.setattr(listings, "REFERRERS_PAGE", page)
    subject = {"mediaType": OCI_MANIFEST, "digest": NOWHERE, "size": 1}
    pushed = {
        digest_of(
            client.push_image(
                repository, layers=(b"%d" % number,), subject=subject, artifactType="a/b",
                annotations={"note": "x" * note},
            )
        )
        for number in range(5)
    }  # fmt: skip
    for query in ("", "?artifactType=a%2Fb"):
        pages = walk(client, f"/v2/{repository}/referrers/{NOWHERE}{query}", "manifests")
        assert {entry["digest"] for each in pages for entry in each} == pushed  # type: ignore[index]
        assert [len(each) for each in pages] == [2, 2, 1]
