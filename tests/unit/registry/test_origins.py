"""Origins and URLs: what is the same party, and what is never followed."""

import pytest

from cais.registry.origin import InvalidUrlError, make_origin, parse_url, split_host


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://Registry.Example.COM./v2/", "https://registry.example.com/v2/"),
        ("https://registry.example.com:443", "https://registry.example.com/"),
        ("http://[::1]:5000/v2/?a=b#c", "http://[::1]:5000/v2/?a=b"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1/x"),
    ],
)
def test_a_url_has_one_form(text: str, shown: str) -> None:
    assert str(parse_url(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "/v2/", "file:///etc/passwd", "unix:///run/x.sock", "ftp://a/", "https://"),
        *("https://user:secret@example.com/", "https://exämple.com/", "https://a b/"),
        *("https://example.com:99999/", "https://example.com\r\nX: y/", "https://a..b/"),
        *("https://-a.com/", "https://[::g]/"),
    ],
)
def test_what_is_no_url_of_a_registry(text: str) -> None:
    with pytest.raises(InvalidUrlError):
        parse_url(text)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("registry.example.com", "auth.example.com", True),
        ("registry.example.com", "example.com", True),
        ("registry.example.com", "example.com.evil.org", False),
        ("registry.example.co.uk", "auth.example.co.uk", True),
        ("example.co.uk", "evil.co.uk", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "11.0.0.1", False),
        ("localhost", "localhost", True),
        ("one", "other", False),
    ],
)
def test_parties(one: str, other: str, *, same: bool) -> None:
    assert make_origin("https", one).is_kin_of(make_origin("https", other, 8443)) is same


def test_no_party_without_tls_is_kin_of_one_with() -> None:
    assert not make_origin("https", "a.example.com").is_kin_of(make_origin("http", "a.example.com"))


def test_a_location_is_resolved() -> None:
    place = parse_url("https://example.com/v2/a/blobs/uploads/")
    assert str(place.join("/v2/a/b?c=d")) == "https://example.com/v2/a/b?c=d"
    assert str(place.join("https://cdn.example.org/x")) == "https://cdn.example.org/x"


@pytest.mark.parametrize(
    ("domain", "parts"),
    [
        ("localhost:5000", ("localhost", 5000)),
        ("[::1]:5000", ("::1", 5000)),
        ("ghcr.io", ("ghcr.io", None)),
    ],
)
def test_the_registry_of_a_name(domain: str, parts: tuple[str, int | None]) -> None:
    assert split_host(domain) == parts
