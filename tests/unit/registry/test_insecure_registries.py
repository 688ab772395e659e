"""``insecure = true``: any certificate will do, where a rule says so, and nowhere else."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import UnsupportedError
from cais.registry.access import Registries
from cais.registry.cancel import Cancel
from cais.registry.credentials import Credentials
from cais.registry.errors import RegistryUnreachableError
from cais.registry.settings import RegistryRule, RegistrySettings
from cais.spec.digest import digest_of
from cais.spec.reference import parse_reference
from cais.testing.registry_shelf import LAYERS, PATH, Shelf
from cais.testing.scripted_registry import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.registry.repository import Repository
    from cais.testing.scripted_registry import Asked, Reply, Server

HOST = "hub.example.com"
"""What the servers here are called: one on loopback would be insecure by itself."""

USER = Credentials("jane", "secret")
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}
BLOB = f"/v2/{PATH}/blobs/{digest_of(LAYERS[0])}"


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's certificate that nobody vouches for."""
    files = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", "key", "-out", "certificate", "-days", "2", "-subj", "/CN=x"),
            *("-addext", f"subjectAltName=DNS:{HOST}"),
        ],
        cwd=files, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "certificate", files / "key")
    return context


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)  # pauses between attempts
    resolve = socket.getaddrinfo

    def resolved(host: str, *arguments: Any, **options: Any) -> Any:
        place = "127.0.0.1" if host.endswith(".example.com") else host
        return resolve(place, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


def welcoming(asked: Asked) -> Reply:
    """Answer whoever has a password."""
    if "authorization" not in asked.headers:
        return 401, BASIC, b"{}"
    return Shelf().serve(asked)


@pytest.fixture
def server(self_signed: ssl.SSLContext) -> Iterator[Server]:
    with answering(welcoming, self_signed) as serving:
        yield serving


@contextlib.contextmanager
def registries(*rules: RegistryRule) -> Iterator[Registries]:
    settings = RegistrySettings({rule.name: rule for rule in rules})
    with contextlib.closing(Registries(settings)) as made:
        yield made


def place_of(server: Server, host: str = HOST) -> str:
    return f"{host}:{server.origin.port}"


def layer(source: Repository) -> bytes:
    return source.read_blob(digest_of(LAYERS[0]), 1_000_000)


def fetch(asked: Registries, name: str, credentials: Credentials = USER) -> bytes:
    return asked.ask(parse_reference(name), credentials, Cancel(), layer)


def test_a_rule_for_what_is_below_a_name(server: Server) -> None:
    """The rest of the registry stays verified: it is asked for nothing, and told nothing."""
    place = place_of(server)
    with registries(RegistryRule(f"{place}/team", insecure=True)) as asked:
        assert fetch(asked, f"{place}/{PATH}") == LAYERS[0]
        assert server.secrets()
        server.seen.clear()
        with pytest.raises(RegistryUnreachableError, match="failed to verify certificate"):
            fetch(asked, f"{place}/other/box")
        with pytest.raises(RegistryUnreachableError, match="failed to verify certificate"):
            asked.log_in(place, USER, Cancel())
        assert server.seen == []


@pytest.mark.parametrize("name", ["docker.io", "docker.io/team", "example.net"])
def test_a_rule_with_a_location(self_signed: ssl.SSLContext, name: str) -> None:
    domain, _, team = name.partition("/")
    with answering(Shelf().serve, self_signed) as server:
        location = f"{place_of(server)}/{team}".rstrip("/")
        with registries(RegistryRule(name, location, insecure=True)) as asked:
            assert fetch(asked, f"{domain}/{PATH}") == LAYERS[0]
    assert not server.secrets()  # they are for somebody else


def test_a_login_and_a_search(server: Server) -> None:
    with registries(RegistryRule("example.com", place_of(server), insecure=True)) as asked:
        assert asked.log_in("example.com", USER, Cancel()) == ""
        with pytest.raises(UnsupportedError, match="offers no search"):
            asked.search("example.com", "box", 5, USER, Cancel())


def test_a_mirror_is_verified(self_signed: ssl.SSLContext, server: Server) -> None:
    """What is said of a registry is not said of its mirrors."""
    with answering(Shelf().serve, self_signed) as mirror:
        place, url = place_of(server), f"https://{place_of(mirror)}"
        with registries(RegistryRule(f"{place}/team", mirrors=[url], insecure=True)) as asked:
            assert fetch(asked, f"{place}/{PATH}") == LAYERS[0]
    assert mirror.seen == []


def test_where_it_leads_is_verified(self_signed: ssl.SSLContext) -> None:
    with answering(Shelf().serve, self_signed) as elsewhere:
        lead = {"Location": f"https://{place_of(elsewhere, 'other.example.com')}{BLOB}"}

        def leading(asked: Asked) -> Reply:
            return (307, lead, b"") if asked.target == BLOB else Shelf().serve(asked)

        with answering(leading, self_signed) as server:
            place = place_of(server)
            with (
                registries(RegistryRule(f"{place}/team", insecure=True)) as asked,
                pytest.raises(RegistryUnreachableError, match="failed to verify certificate"),
            ):
                fetch(asked, f"{place}/{PATH}")
    assert elsewhere.seen == []


def test_a_token_comes_from_the_registry_itself(self_signed: ssl.SSLContext) -> None:
    def script(asked: Asked) -> Reply:
        if asked.target.startswith("/token?"):
            return 200, {}, b'{"token":"t"}'
        if asked.headers.get("authorization") != "Bearer t":
            return 401, {"WWW-Authenticate": f'Bearer realm="https://{place}/token"'}, b"{}"
        return Shelf().serve(asked)

    with answering(script, self_signed) as server:
        place = place_of(server)
        with registries(RegistryRule(f"{place}/team", insecure=True)) as asked:
            assert fetch(asked, f"{place}/{PATH}") == LAYERS[0]


def test_one_without_tls_is_so_for_nobody_else() -> None:
    """That a rule's repositories answer by http does not keep others from being asked by https."""
    with answering(welcoming) as server:
        place = place_of(server)
        with registries(RegistryRule(f"{place}/team", insecure=True)) as asked:
            for _ in range(2):
                assert fetch(asked, f"{place}/{PATH}") == LAYERS[0]
            server.seen.clear()
            with pytest.raises(RegistryUnreachableError, match="HTTP response to HTTPS client"):
                fetch(asked, f"{place}/other/box")
    assert server.seen == []
