"""Which requests go by a proxy, and what it gets to see."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from cais.errors import InvalidArgumentError
from cais.registry.answers import Request
from cais.registry.cancel import Cancel
from cais.registry.errors import RegistryUnreachableError
from cais.registry.origin import make_origin, parse_url
from cais.registry.proxies import Proxies
from cais.registry.transport import Transport
from cais.testing.scripted_registry import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("no", "host", "port", "is_direct"),
    [
        ("", "registry.example.com", 443, False),
        ("example.com", "registry.example.com", 443, True),
        ("example.com", "example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        (".example.com", "registry.example.com", 443, True),
        (".example.com", "example.com", 443, False),
        ("*.example.com", "registry.example.com", 443, True),
        ("EXAMPLE.com", "example.com", 443, True),
        ("a.example.com, b.example.com", "b.example.com", 443, True),
        ("example.com:5000", "example.com", 5000, True),
        ("example.com:5000", "example.com", 443, False),
        ("192.0.2.1", "192.0.2.1", 443, True),
        ("192.0.2.0/24", "192.0.2.9", 443, True),
        ("192.0.2.0/24", "198.51.100.1", 443, False),
        ("192.0.2.1:80", "192.0.2.1", 443, False),
        ("2001:db8::/32", "2001:db8::1", 443, True),
        ("[2001:db8::1]:443", "2001:db8::1", 443, True),
        ("*", "registry.example.com", 443, True),
        ("nonsense/x", "192.0.2.1", 443, False),
        ("", "localhost", 443, True),
        ("", "127.0.0.1", 443, True),
        ("", "::1", 443, True),
    ],
)
def test_who_is_reached_directly(no: str, host: str, port: int, *, is_direct: bool) -> None:
    proxies = Proxies(https="http://proxy.example.net:3128", no=no)
    found = proxies.find(make_origin("https", host, port))
    assert (found is None) is is_direct
    if found is not None:
        assert (found.host, found.port) == ("proxy.example.net", 3128)


def test_each_scheme_has_its_own() -> None:
    proxies = Proxies(http="one", https="http://two:8080")
    plain, secure = (proxies.find(make_origin(s, "example.com")) for s in ("http", "https"))
    assert plain is not None
    assert secure is not None
    assert (plain.host, plain.port, secure.host, secure.port) == ("one", 80, "two", 8080)


def test_the_environment() -> None:
    proxies = Proxies.from_environment({"HTTP_PROXY": "a", "http_proxy": "b", "https_proxy": "c"})
    assert proxies == ("a", "c", "")


@pytest.mark.parametrize("url", ["socks5://proxy", "https://proxy", "http://", "http://p:x"])
def test_kinds_that_are_not_supported(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="proxy"):
        Proxies(http=url).check()


def test_a_password_is_shown_to_nobody() -> None:
    proxies = Proxies("http://jane:secret@proxy", "jane:secret@proxy", "x")
    assert proxies.masked() == ("http://xxxxx:xxxxx@proxy", "xxxxx:xxxxx@proxy", "x")
    with pytest.raises(InvalidArgumentError) as failed:
        Proxies(http="socks5://jane:secret@proxy").check()
    assert "secret" not in str(failed.value)


def carrier(proxies: Proxies) -> contextlib.closing[Transport]:
    return contextlib.closing(Transport(lambda _: ssl.create_default_context(), proxies))


def test_http_by_a_proxy() -> None:
    with serving(lambda *_: (200, {}, b"by proxy")) as proxy:
        url = f"http://jane:se%40cret@127.0.0.1:{proxy.origin.port}"
        request = Request("GET", parse_url("http://registry.example.com/v2/?a=b"), {"A": "b"})
        with carrier(Proxies(http=url)) as transport:
            assert transport.fetch(request, Cancel(), 100)[1] == b"by proxy"
            assert transport.fetch(request, Cancel(), 100)[1] == b"by proxy"
    for _, target, headers in proxy.seen:
        assert target == "http://registry.example.com/v2/?a=b"
        assert headers["host"] == "registry.example.com"
        assert headers["proxy-authorization"] == "Basic amFuZTpzZUBjcmV0"
        assert headers["a"] == "b"


@contextlib.contextmanager
def tunnel(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that is asked for a tunnel once; gives its port and all it was sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(60)
                text = b""
                while b"\r\n\r\n" not in text:
                    text += connection.recv(4096)
                connection.sendall(answer)
                with contextlib.suppress(OSError):
                    text += connection.recv(4096)
                heard.append(text)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], heard
        thread.join()


def test_https_goes_through_and_shows_nothing() -> None:
    """The proxy is told where to; of the request it sees the beginning of TLS only."""
    secret = {"Authorization": "Bearer secret"}
    request = Request("GET", parse_url("https://registry.example.com/v2/"), secret)
    with tunnel(b"HTTP/1.1 200 yes\r\n\r\n") as (port, heard):
        proxies = Proxies(https=f"http://jane:pass@127.0.0.1:{port}")
        with carrier(proxies) as transport, pytest.raises(RegistryUnreachableError):
            transport.send(request, Cancel(), attempts=1)
    head, _, rest = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"CONNECT registry.example.com:443 HTTP/1")
    assert b"Proxy-Authorization: Basic amFuZTpwYXNz" in head
    assert b"secret" not in heard[0]
    assert rest[:1] == b"\x16"  # a TLS handshake


def test_a_proxy_that_refuses() -> None:
    request = Request("GET", parse_url("https://registry.example.com/v2/"), {})
    refusal = "Tunnel connection failed: 407"
    with (
        tunnel(b"HTTP/1.1 407 who are you\r\n\r\n") as (port, _),
        carrier(Proxies(https=f"http://127.0.0.1:{port}")) as transport,
        pytest.raises(RegistryUnreachableError, match=refusal),
    ):
        transport.send(request, Cancel(), attempts=1)
