"""``cais registry serve``: what its flags mean."""

from pathlib import Path
from typing import Any

import pytest

from cais.cli.commands import registry
from cais.cli.session import Session
from cais.errors import InvalidArgumentError

FLAGS: dict[str, Any] = {
    "address": "127.0.0.1:0", "htpasswd": None, "no_delete": False, "no_images": False,
    "read_only": False, "tls_cert": None, "tls_key": None, "proxy": None,
    "proxy_username": None, "proxy_password_file": None,
}  # fmt: skip


def options(data_root: Path, **flags: Any) -> Any:
    session = Session({}, data_root=str(data_root))
    return registry._options(session, **{**FLAGS, **flags})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)), (":5000", ("127.0.0.1", 5000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)), ("[::1]:80", ("::1", 80)), ("host:65535", ("host", 65535)),
    ],
)  # fmt: skip
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert registry.parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "5000", "host:", "host:x", "h:65536", "h:9999999"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="HOST:PORT is expected"):
        registry.parse_address(text)


def test_alone(tmp_path: Path) -> None:
    made = options(tmp_path)
    assert made.root == tmp_path / "registry"
    assert (made.may_write, made.may_delete, made.neighbour, made.lender) == (
        True, True, None, None,
    )  # fmt: skip


def test_beside_an_engine(tmp_path: Path) -> None:
    (tmp_path / "images.db").touch()
    made = options(tmp_path)
    assert made.neighbour == tmp_path / "content"
    assert made.lender is not None
    made.lender.close()
    assert options(tmp_path, no_images=True).lender is None


def test_what_is_refused(tmp_path: Path) -> None:
    assert not options(tmp_path, no_delete=True).may_delete
    made = options(tmp_path, read_only=True)
    assert (made.may_write, made.may_delete) == (False, False)


def test_a_cache_has_a_place_of_its_own(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    made = options(
        tmp_path, proxy="https://quay.io", proxy_username="ann", proxy_password_file=str(password)
    )
    assert made.root == tmp_path / "registry-cache-quay.io"
    assert made.upstream.domain == "quay.io"
    assert made.upstream._credentials[:2] == ("ann", "secret")
    assert options(tmp_path, proxy="https://registry-1.docker.io").upstream.domain == "docker.io"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tls_cert": "x"}, "--tls-cert and --tls-key belong together"),
        ({"proxy_username": "x"}, "--proxy is missing"),
        ({"proxy": "https://a.b", "proxy_username": "x"}, "belong together"),
        (
            {"proxy": "https://a.b", "proxy_username": "x", "proxy_password_file": "/nowhere"},
            "/nowhere: No such file",
        ),
        ({"proxy": "https://a.b/c"}, "without a path"),
        ({"proxy": "quay.io"}, "unsupported URL"),
        ({"proxy": "https://user:password@a.b"}, "has a user name in it"),
    ],
)
def test_flags_that_make_no_sense(tmp_path: Path, flags: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        options(tmp_path, **flags)
