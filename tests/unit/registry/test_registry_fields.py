"""What requests say, read strictly: any text is read or refused, never an accident."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.errors import CaisError
from cais.http.connection import Head
from cais.registry.server import fields
from cais.registry.server.documents import read_manifest
from cais.registry.server.errors import RefusalError, error_response
from cais.registry.server.routes import Deed, Route, Routes

NASTY = st.text(alphabet="/%.:@*?&=+-_0123456789abcdefvblostuagshfmnir\x00\x7fé\n ", max_size=80)


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns, or the refusal it ends with."""
    try:
        return function(*arguments)
    except CaisError as exc:
        return exc


async def nothing(_: Any) -> Any:
    raise AssertionError("only looked for")


ROUTES = Routes(
    Route("GET", path, Deed.READ, nothing)
    for path in (
        "/v2/", "/v2/_catalog", "/v2/{name}/tags/list", "/v2/{name}/manifests/{place}",
        "/v2/{name}/blobs/{place}", "/v2/{name}/blobs/uploads/{place}",
    )
)  # fmt: skip


@given(NASTY, st.sampled_from(["/v2/", "/v2/a/blobs/", "/v2/a/manifests/", "/"]))
def test_any_target_is_found_or_refused(text: str, prefix: str) -> None:
    target = (prefix + text).encode("utf-8", "surrogatepass").decode("latin-1")
    found = outcome(ROUTES.find, Head("GET", target, {}), None)
    if isinstance(found, CaisError):
        assert 400 <= error_response(found, "test").status < 500
    else:
        call = found[1]
        assert not call.repository or fields.parse_name(call.repository) == call.repository
        assert "/" not in call.place


@pytest.mark.parametrize(
    ("target", "repository", "place"),
    [
        ("/v2/a/blobs/x", "a", "x"), ("/v2/a/blobs/blobs/x", "a/blobs", "x"),
        ("/v2/a/blobs/uploads/x", "a", "x"), ("/v2/blobs/uploads/tags/list", "blobs/uploads", ""),
        ("/v2/a/manifests/b/manifests/c", "a/manifests/b", "c"),
        ("/v2/a/manifests/sha256%3Ax", "a", "sha256:x"), ("/v2/_catalog?n=1", "", ""),
    ],
)  # fmt: skip
def test_paths(target: str, repository: str, place: str) -> None:
    _, call = ROUTES.find(Head("GET", target, {}), None)  # type: ignore[arg-type]
    assert (call.repository, call.place) == (repository, place)


@given(st.text(max_size=40), st.integers(0, 10**12))
def test_any_range_is_within_the_blob(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        found = outcome(fields.parse_range, header, size)
        if isinstance(found, RefusalError):
            assert found.status == 416
        elif found is not None:
            assert 0 <= found.offset < size
            assert 0 < found.size <= size - found.offset


@given(st.integers(0, 10**19), st.integers(0, 10**19), st.integers(1, 10**12))
def test_ranges_by_number(first: int, last: int, size: int) -> None:
    try:
        found = fields.parse_range(f"bytes={first}-{last}", size)
    except RefusalError:
        assert first >= size
    else:
        expected = None if last < first else (first, min(last + 1, size) - first)
        assert found == expected or (found is None and max(first, last) >= 10**19)


@given(st.text(max_size=100), st.text(max_size=40))
def test_accept_is_always_yes_or_no(header: str, media_type: str) -> None:
    assert fields.accepts(header, media_type) in {True, False}
    assert fields.accepts(f"{header},*/*", media_type)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.text(max_size=40))
def test_any_document_is_a_manifest_or_refused(content: bytes, declared: str) -> None:
    found = outcome(read_manifest, content, declared)
    assert getattr(found, "code", "MANIFEST_INVALID") == "MANIFEST_INVALID"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"schemaVersion": st.just(2)},
        optional=dict.fromkeys(
            ("mediaType", "config", "layers", "blobs", "manifests", "subject", "annotations"), JSON
        ),
    )
)
def test_any_members_make_a_manifest_or_are_refused(document: Any) -> None:
    found = outcome(read_manifest, json.dumps(document).encode(), "")
    assert getattr(found, "code", "MANIFEST_INVALID") == "MANIFEST_INVALID"
