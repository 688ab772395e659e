"""Challenges and tokens, and where a password goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cais.registry.auth import Authenticator, parse_challenges
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS, Credentials
from cais.registry.discovery import tags
from cais.registry.errors import LoginNeededError, ProtocolError
from cais.registry.origin import make_origin
from cais.registry.repository import Repository
from cais.testing.scripted_registry import serving, transport

if TYPE_CHECKING:
    from cais.testing.scripted_registry import Reply

USER = Credentials("jane", "secret")


def test_challenges() -> None:
    header = (
        'Bearer realm="https://auth.example.com/token?a=b",service="x, y",scope="a:b:pull,push", '
        'Basic realm="say \\"hi\\""'
    )
    bearer, basic = parse_challenges(header)
    assert bearer.parameters == {
        "realm": "https://auth.example.com/token?a=b",
        "service": "x, y",
        "scope": "a:b:pull,push",
    }
    assert basic == ("basic", {"realm": 'say "hi"'})
    assert parse_challenges("") == []
    assert parse_challenges('"') == []


def test_a_token_is_fetched_once_and_used() -> None:
    def script(_method: str, target: str, headers: dict[str, str]) -> Reply:
        if target.startswith("/token"):
            return 200, {}, json.dumps({"token": "t1", "expires_in": 300}).encode()
        if headers.get("authorization") != "Bearer t1":
            realm = f"{server.origin}/token"
            challenge = f'Bearer realm="{realm}",service="here"'
            return 401, {"WWW-Authenticate": challenge}, b"{}"
        return 200, {}, b'{"tags":["a"]}'

    with serving(script) as server, transport() as carrier:
        auth = Authenticator(carrier, server.origin, USER)
        repository = Repository(carrier, server.origin, "x/y", auth, Cancel())
        assert tags(repository) == ["a"]
        assert tags(repository) == ["a"]
        targets = [target for _, target, _ in server.seen]
        assert [target.partition("?")[0] for target in targets] == [
            *("/v2/x/y/tags/list", "/token", "/v2/x/y/tags/list", "/v2/x/y/tags/list")
        ]
        assert "scope=repository%3Ax%2Fy%3Apull" in targets[1]
        assert "account=jane" in targets[1]


def test_cve_2026_33540_a_password_stays_with_its_party() -> None:
    """A realm elsewhere gets nothing of a user, and anonymous users may be sent there."""

    def script(_method: str, target: str, _headers: dict[str, str]) -> Reply:
        if target.startswith("/token"):
            return 200, {}, b'{"token":"t"}'
        return 200, {}, b""

    with serving(script) as elsewhere, transport() as carrier:
        realm = f"http://localhost:{elsewhere.origin.port}/token"
        origin = make_origin("http", "registry.example.com")
        for credentials in (USER, Credentials("jane", identity_token="secret")):
            auth = Authenticator(carrier, origin, credentials)
            assert auth.learn(f'Bearer realm="{realm}"', "")
            with pytest.raises(ProtocolError, match="another party"):
                auth.authorize("", Cancel())
        assert not elsewhere.seen
        auth = Authenticator(carrier, origin, ANONYMOUS)
        auth.learn(f'Bearer realm="{realm}"', "")
        assert auth.authorize("", Cancel()) == "Bearer t"
        assert not elsewhere.secrets()


def test_no_token_server_without_tls_for_a_registry_with() -> None:
    with transport() as carrier:
        auth = Authenticator(carrier, make_origin("https", "example.com"), ANONYMOUS)
        auth.learn('Bearer realm="http://example.com/token"', "")
        with pytest.raises(ProtocolError, match="without TLS"):
            auth.authorize("", Cancel())


def test_a_refused_password_is_said_so() -> None:
    def script(*_: object) -> Reply:
        return 401, {}, b'{"details":"incorrect username or password"}'

    with serving(script) as server, transport() as carrier:
        auth = Authenticator(carrier, server.origin, USER)
        auth.learn(f'Bearer realm="{server.origin}/token"', "")
        with pytest.raises(LoginNeededError, match="unauthorized: incorrect username or password"):
            auth.authorize("", Cancel())


def test_basic_needs_a_password() -> None:
    with transport() as carrier:
        origin = make_origin("https", "example.com")
        assert not Authenticator(carrier, origin, ANONYMOUS).learn('Basic realm="x"', "")
        auth = Authenticator(carrier, origin, USER)
        assert auth.learn('Basic realm="x"', "")
        assert not auth.learn('Basic realm="x"', "")
        assert auth.authorize("", Cancel()) == "Basic amFuZTpzZWNyZXQ="


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(USER)
