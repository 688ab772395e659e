"""Proxies between us and registries.

``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` mean what they mean to dockerd: names in upper case
come before those in lower case, this machine is never reached by a proxy, and ``NO_PROXY`` lists
hosts (and what is below them), ``.domain`` (only what is below it), addresses, networks, each
perhaps with a port, or ``*``. Imports nothing of HTTP.

Spec: dockerd documentation, "Daemon proxy configuration".
"""

from __future__ import annotations

import base64
import ipaddress
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.registry.origin import Origin

_DEFAULT_PORT = 80


class Proxy(NamedTuple):
    """One proxy."""

    host: str
    port: int
    authorization: str
    """What ``Proxy-Authorization`` says; "" for nothing."""


class Proxies(NamedTuple):
    """URLs of the proxies for http and https, and who is reached without."""

    http: str = ""
    https: str = ""
    no: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables."""
        names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
        found = [environment.get(name) or environment.get(name.lower(), "") for name in names]
        return cls(*found)

    def check(self) -> Self:
        """Return itself. InvalidArgumentError: a URL of a kind that is not supported."""
        for text in (self.http, self.https):
            if text:
                _read(text)
        return self

    def masked(self) -> Proxies:
        """Return them for others to see: without user names and passwords."""
        return Proxies(_masked(self.http), _masked(self.https), self.no)

    def find(self, origin: Origin) -> Proxy | None:
        """Return the proxy to an origin; None: it is reached directly."""
        text = self.https if origin.scheme == "https" else self.http
        if not text or origin.is_loopback or any(_covers(rule, origin) for rule in self._rules()):
            return None
        return _read(text)

    def _rules(self) -> list[str]:
        return [rule.strip().lower() for rule in self.no.split(",") if rule.strip()]


NO_PROXIES = Proxies()


def _read(text: str) -> Proxy:
    """Read a proxy's URL, whose scheme may be left out."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
    except ValueError as exc:
        raise InvalidArgumentError(f"invalid proxy URL {_masked(text)[:200]!r}") from exc
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidArgumentError(
            f"proxy {_masked(text)[:200]!r} is not supported: only http:// proxies are"
        )
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    secret = f"{unquote(user)}:{unquote(password)}" if user or colon else ""
    encoded = base64.b64encode(secret.encode()).decode()
    return Proxy(parts.hostname, port, f"Basic {encoded}" if secret else "")


def _masked(text: str) -> str:
    scheme, separator, rest = text.rpartition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at and user else text


def _covers(rule: str, origin: Origin) -> bool:
    """Whether one entry of ``NO_PROXY`` names an origin."""
    if rule == "*":
        return True
    host, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        if int(port) != origin.port:
            return False
        rule = host
    rule = rule.strip("[]").removeprefix("*")
    try:
        address = ipaddress.ip_address(origin.host)
    except ValueError:
        return origin.host == rule or origin.host.endswith(f".{rule.removeprefix('.')}")
    try:
        return address in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False
