"""References: the grammar, the familiar form, Docker's error texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cais.spec.digest import Digest
from cais.spec.reference import (
    InvalidReferenceError,
    Reference,
    parse_reference,
    parse_tag,
)

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

ALNUM = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=6)
COMPONENT = st.builds(
    "".join,
    st.lists(st.tuples(ALNUM, st.sampled_from([".", "_", "__", "-", "---"])).map("".join)).flatmap(
        lambda head: ALNUM.map(lambda last: [*head[:2], last])
    ),
)
PATH = st.lists(COMPONENT, min_size=1, max_size=3).map("/".join)
DOMAIN = st.sampled_from(
    ["docker.io", "localhost", "localhost:5000", "example.com", "Example.COM:443", "[::1]:5000",
     "10.0.0.1:80", "a.b-c.d"]
)  # fmt: skip
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


def make(domain: str, path: str, tag: str | None, digest: str | None) -> Reference:
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return Reference(domain, path, tag, Digest(f"sha256:{digest}") if digest else None)


REFERENCE = st.builds(make, DOMAIN, PATH, st.none() | TAG, st.none() | HEX)


@given(REFERENCE)
def test_the_full_form_reads_as_it_was_written(reference: Reference) -> None:
    assert parse_reference(str(reference)) == reference


@given(REFERENCE)
def test_the_familiar_form_means_the_same(reference: Reference) -> None:
    assert parse_reference(reference.familiar()) == reference


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference
    assert not set(str(reference)) & set(" \0\n'\"\\")
    assert ".." not in reference.path.split("/")


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("user/app:x", "docker.io/user/app:x", "user/app:x"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("host.example/app@" + DIGEST, f"host.example/app@{DIGEST}", f"host.example/app@{DIGEST}"),
        (f"app:tag@{DIGEST}", f"docker.io/library/app:tag@{DIGEST}", f"app:tag@{DIGEST}"),
    ],
)
def test_familiar_names(text: str, full: str, familiar: str) -> None:
    assert str(parse_reference(text)) == full
    assert parse_reference(text).familiar() == familiar


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a/../b", "invalid reference format"),
        ("../a", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("a@", "invalid reference format"),
        (f"a:{'t' * 129}", "invalid reference format"),
        ("\u00e4", "invalid reference format"),
        ("App", "invalid reference format: repository name (library/App) must be lowercase"),
        ("h.io/App", "invalid reference format: repository name (App) must be lowercase"),
        (
            "a" * 256,
            "invalid reference format: repository name must not be more than 255 characters",
        ),
        ("a" * 64, "invalid reference format: cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_dockers_texts(text: str, why: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert str(caught.value) == why


def test_the_default_tag_is_added_only_where_nothing_is_said() -> None:
    assert parse_reference("a").with_default_tag().tag == "latest"
    assert parse_reference("a:b").with_default_tag().tag == "b"
    assert parse_reference(f"a@{DIGEST}").with_default_tag().tag is None


def test_a_tag_alone() -> None:
    assert parse_tag("v1.0_x-y") == "v1.0_x-y"
    for text in ("", ".x", "a/b", "x" * 129, "a\n"):
        with pytest.raises(InvalidReferenceError):
            parse_tag(text)
