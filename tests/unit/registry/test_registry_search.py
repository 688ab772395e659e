"""Searching: how a term is read, what is asked, what is taken of the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.registry.access import Registries
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS, Credentials
from cais.registry.errors import DeniedByRegistryError, ProtocolError
from cais.registry.search import Found, check_limit, chooser, split_term
from cais.registry.settings import RegistrySettings
from cais.testing.scripted_registry import serving

if TYPE_CHECKING:
    from cais.testing.scripted_registry import Reply, Script


@pytest.mark.parametrize(
    ("term", "split"),
    [
        ("busybox", ("docker.io", "busybox")),
        ("library/busybox", ("docker.io", "busybox")),
        ("team/box", ("docker.io", "team/box")),
        ("docker.io/busybox", ("docker.io", "busybox")),
        ("index.docker.io/library/x", ("docker.io", "x")),
        ("example.com/box", ("example.com", "box")),
        ("localhost/box", ("localhost", "box")),
        ("localhost:5000/a/b", ("localhost:5000", "a/b")),
    ],
)
def test_terms(term: str, split: tuple[str, str]) -> None:
    assert split_term(term) == split


def test_a_term_is_no_url() -> None:
    with pytest.raises(InvalidArgumentError, match=r"\(https://x/y\) should not have a scheme"):
        split_term("https://x/y")


def test_limits() -> None:
    assert [check_limit(limit) for limit in (0, 1, 100)] == [25, 1, 100]
    for limit in (-1, 101):
        with pytest.raises(InvalidArgumentError, match=rf"limit {limit} is outside the range of"):
            check_limit(limit)


OFFICIAL, OTHER = Found("a", star_count=10, is_official=True), Found("b", star_count=3)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "ab"),
        ({"is-official": ["true"]}, "a"),
        ({"is-official": ["0"]}, "b"),
        ({"stars": ["3"]}, "ab"),
        ({"stars": ["3", "4"]}, "a"),
        ({"is-automated": ["true"]}, ""),
    ],
)
def test_filters(filters: dict[str, list[str]], found: str) -> None:
    is_wanted = chooser(filters)
    assert "".join(one.name for one in (OFFICIAL, OTHER) if is_wanted(one)) == found


@pytest.mark.parametrize(
    "filters", [{"name": ["x"]}, {"stars": ["many"]}, {"stars": ["-1"]}, {"is-official": ["yes"]}]
)
def test_filters_that_are_none(filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid filter"):
        chooser(filters)


def search(script: Script, credentials: Credentials = ANONYMOUS) -> tuple[list[Found], list[Any]]:
    with serving(script) as server:
        registries = Registries(RegistrySettings())
        try:
            found = registries.search(
                f"127.0.0.1:{server.origin.port}", "two words", 5, credentials, Cancel()
            )
        finally:
            registries.close()
    return found, server.seen


def answer(**document: Any) -> Reply:
    return 200, {}, json.dumps(document).encode()


def test_what_is_asked_and_taken() -> None:
    results = [{"name": f"box{n}", "star_count": n, "description": None} for n in range(9)]
    found, seen = search(lambda *_: answer(num_results=9, results=results, query="two words"))
    assert [one.shown()["name"] for one in found] == ["box0", "box1", "box2", "box3", "box4"]
    assert found[0].shown()["description"] == ""
    assert [target for _, target, _ in seen] == ["/v1/search?q=two+words&n=5"]


def test_a_password_when_it_is_wanted() -> None:
    def script(_method: str, _target: str, headers: dict[str, str]) -> Reply:
        if headers.get("authorization") != "Basic amFuZTpw":
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return answer(results=[{"name": "private"}])

    assert search(script, Credentials("jane", "p"))[0][0].name == "private"


@pytest.mark.parametrize("status", [404, 405])
def test_registries_without(status: int) -> None:
    with pytest.raises(UnsupportedError, match=r"registry 127.0.0.1:\d+ offers no search"):
        search(lambda *_: (status, {}, b"not here"))


def test_refusals() -> None:
    with pytest.raises(DeniedByRegistryError):
        search(lambda *_: (403, {}, b""))


@pytest.mark.parametrize("body", [b"[]", b'{"results":[{}]}', b"<html>", b'{"results":7}'])
def test_answers_that_are_none(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        search(lambda *_: (200, {}, body))
