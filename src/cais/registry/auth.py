"""Who we are to a registry: challenges answered, tokens fetched and kept.

Credentials go to the registry they are for and to the token server it names, if that is run by
the same party as far as names tell (CVE-2026-33540); anonymous tokens may come from anywhere.

Spec: RFC 9110 section 11; distribution token authentication ("Token Authentication
Specification", "OAuth2 Token Authentication").
"""

from __future__ import annotations

import base64
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

import msgspec

from cais.errors import UnauthenticatedError
from cais.registry.answers import Request
from cais.registry.errors import LoginNeededError, ProtocolError
from cais.registry.origin import parse_url
from cais.spec import strict_json
from cais.spec.conversion import convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.registry.cancel import Cancel
    from cais.registry.credentials import Credentials
    from cais.registry.origin import Origin, Url
    from cais.registry.transport import Transport

TOKEN_LIMIT_BYTES = 1024 * 1024
_CHALLENGE_LIMIT = 8192
_DEFAULT_LIFETIME_S = 60
_EARLY_S = 10
_CLIENT_ID = "cais"
_SCHEME = re.compile(r"\s*(?:,\s*)*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s+|$)")
_PARAMETER = re.compile(
    r"""\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)"""
)


class Challenge(NamedTuple):
    """One way to authenticate that a registry offers."""

    scheme: str
    parameters: Mapping[str, str]


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: int | None = None


class Authenticator:
    """Authorization for requests to one registry. Thread-safe.

    Args:
        transport: for requests to token servers.
        origin: the registry; nobody else is given what ``authorize`` returns.
        credentials: of the user there.

    """

    def __init__(self, transport: Transport, origin: Origin, credentials: Credentials) -> None:
        self._transport = transport
        self._origin = origin
        self._credentials = credentials
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self.identity_token = ""
        """A refresh token the server gave for the password; ``docker login`` stores it."""

    def authorize(self, scope: str, cancel: Cancel) -> str | None:
        """Return the ``Authorization`` for a request with ``scope``; None: none is known to help.

        Args:
            scope: what a token must allow, ``repository:library/busybox:pull``, several of them
                with blanks between; "" for none.
            cancel: ends the request for a token.

        Raises:
            LoginNeededError: the token server refuses the credentials.

        """
        with self._lock:
            challenge = self._challenge
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._basic()
        with self._lock:
            token, until = self._tokens.get(scope, ("", 0.0))
        if time.monotonic() >= until:
            token, lifetime = self._fetch(challenge, scope, cancel)
            with self._lock:
                self._tokens[scope] = (token, time.monotonic() + lifetime - _EARLY_S)
        return f"Bearer {token}"

    def learn(self, header: str, scope: str) -> bool:
        """Take note of a ``WWW-Authenticate``; whether the request is worth another attempt."""
        found = _best(header)
        if found is None or (found.scheme == "basic" and not self._credentials.password):
            return False
        with self._lock:
            is_news = self._challenge is None or scope in self._tokens
            self._challenge = found
            self._tokens.pop(scope, None)
        return is_news

    def lacks_password(self, header: str) -> bool:
        """Whether a ``WWW-Authenticate`` wants a password, and there is none."""
        found = _best(header)
        return found is not None and found.scheme == "basic" and not self._credentials.password

    def _basic(self) -> str | None:
        username, password = self._credentials.username, self._credentials.password
        if not password:
            return None
        return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    def _fetch(self, challenge: Challenge, scope: str, cancel: Cancel) -> tuple[str, float]:
        realm = self._realm(challenge)
        request = self._token_request(realm, challenge.parameters.get("service", ""), scope)
        try:
            _, body = self._transport.fetch(request, cancel, TOKEN_LIMIT_BYTES)
        except UnauthenticatedError as exc:
            text = f'Get "{realm}": unauthorized: {exc}'
            raise LoginNeededError(401, ("UNAUTHORIZED",), text) from exc
        document = strict_json.loads(body, TOKEN_LIMIT_BYTES)
        try:
            answer = convert(document, _Token)
        except msgspec.ValidationError as exc:
            raise ProtocolError(f"{realm}: not an answer of a token server: {exc}") from exc
        token = answer.token or answer.access_token
        if not token or not token.isprintable():
            raise ProtocolError(f"{realm}: the token server gave no token")
        if answer.refresh_token:
            self.identity_token = answer.refresh_token
        lifetime = answer.expires_in if answer.expires_in is not None else _DEFAULT_LIFETIME_S
        return token, float(max(lifetime, _DEFAULT_LIFETIME_S))

    def _realm(self, challenge: Challenge) -> Url:
        realm = parse_url(challenge.parameters.get("realm", ""))
        if self._origin.scheme == "https" and realm.origin.scheme == "http":
            raise ProtocolError(f"{self._origin} sends to a token server without TLS: {realm}")
        if not self._credentials.is_anonymous and not realm.origin.is_kin_of(self._origin):
            raise ProtocolError(
                f"{self._origin} wants its password sent to another party, {realm.origin}: refused"
            )
        return realm

    def _token_request(self, realm: Url, service: str, scope: str) -> Request:
        if self._credentials.identity_token:
            fields = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "client_id": _CLIENT_ID,
                "service": service,
                "scope": scope,
            }
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            return Request("POST", realm, kind, urlencode(fields).encode())
        query = [("service", service), *(("scope", one) for one in scope.split())]
        if self._credentials.password:
            query += [("account", self._credentials.username), ("offline_token", "true")]
        text = urlencode([(name, value) for name, value in query if value])
        mark = "&" if "?" in realm.target else "?"
        basic = self._basic()
        headers = {"Authorization": basic} if basic else {}
        return Request("GET", realm._replace(target=f"{realm.target}{mark}{text}"), headers)


def _best(header: str) -> Challenge | None:
    known = {challenge.scheme: challenge for challenge in parse_challenges(header)}
    return known.get("bearer") or known.get("basic")


def parse_challenges(header: str) -> list[Challenge]:
    """Read a ``WWW-Authenticate`` field; what is malformed ends the list."""
    found = []
    rest = header[:_CHALLENGE_LIMIT]
    while match := _SCHEME.match(rest):
        rest = rest[match.end() :]
        parameters = {}
        while (parameter := _PARAMETER.match(rest)) is not None:
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters[name.lower()] = value
            rest = rest[parameter.end() :]
        found.append(Challenge(match[1].lower(), parameters))
    return found
