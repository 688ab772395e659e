"""Origins: the exact (scheme, host, port) a credential belongs to.

Everything that decides where a secret may go compares origins, never texts of URLs, so a URL is
read once, here, and refused when two parsers could read it differently (user information, control
characters, names that are not ASCII).

Spec: RFC 3986; RFC 6454 section 4.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from cais.errors import InvalidArgumentError

PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# Second-level names below which everybody can register: example.co.uk belongs to another than
# other.co.uk.
_SHARED = frozenset({"ac", "co", "com", "edu", "gob", "gov", "net", "or", "org"})


class InvalidUrlError(InvalidArgumentError):
    """A URL of a registry is malformed, or of a kind that is never followed."""


class Origin(NamedTuple):
    """Who answers: scheme, lower-case host (an IPv6 address without brackets), port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{'' if self.is_default_port else f':{self.port}'}"

    @property
    def is_default_port(self) -> bool:
        """Whether the port goes without saying."""
        return PORTS[self.scheme] == self.port

    @property
    def netloc(self) -> str:
        """Return what ``Host:`` says."""
        return str(self).partition("://")[2]

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine by its name, not by what a name server says."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def is_kin_of(self, other: Origin) -> bool:
        """Whether both are run by the same party, as far as names tell.

        The same host, or names below the same registered domain: registry.example.com and
        auth.example.com, but not registry.co.uk and auth.co.uk. Never downwards from https.
        """
        if (self.scheme, other.scheme) in {("http", "https"), ("https", "http")}:
            return False
        return self.host == other.host or _domain(self.host) == _domain(other.host) != ""


class Url(NamedTuple):
    """An absolute URL: its origin and what the request line says."""

    origin: Origin
    target: str

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"

    def join(self, reference: str) -> Url:
        """Resolve a ``Location`` or a ``next`` link against this one.

        Raises:
            InvalidUrlError: as ``parse_url``; or it leads from https to http.

        """
        target = parse_url(urljoin(str(self), reference))
        if self.origin.scheme == "https" and target.origin.scheme == "http":
            raise InvalidUrlError(f"{self}: refused to be led from https to http")
        return target


def parse_url(text: str) -> Url:
    """Read an absolute http or https URL; a fragment goes.

    Raises:
        InvalidUrlError: anything else, user information, or a host that is not plain ASCII.

    """
    if not _PRINTABLE.fullmatch(text):
        raise InvalidUrlError(f"malformed URL {text[:200]!r}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise InvalidUrlError(f"malformed URL {text[:200]!r}") from exc
    if parts.scheme not in PORTS:
        raise InvalidUrlError(f"a registry leads to an unsupported URL: {text[:200]!r}")
    if "@" in parts.netloc:
        raise InvalidUrlError("a URL of a registry has a user name in it")
    origin = make_origin(parts.scheme, parts.hostname or "", port)
    target = parts.path or "/"
    return Url(origin, f"{target}?{parts.query}" if parts.query else target)


def check_mirror(text: str) -> str:
    """Return a mirror's URL. InvalidUrlError: more than an origin, with dockerd's text."""
    url = parse_url(text)
    if url.target.strip("/"):
        raise InvalidUrlError(f"invalid mirror: unsupported path, query or fragment in {text!r}")
    return text


def make_origin(scheme: str, host: str, port: int | None = None) -> Origin:
    """Check and normalize the parts. InvalidUrlError: the host is neither a name nor an address."""
    host = host.lower().rstrip(".")
    if ":" in host:
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError as exc:
            raise InvalidUrlError(f"malformed host {host[:200]!r}") from exc
    elif not _HOST.fullmatch(host) or ".." in host:
        raise InvalidUrlError(f"malformed host {host[:200]!r}")
    return Origin(scheme, host, PORTS[scheme] if port is None else port)


def split_host(domain: str) -> tuple[str, int | None]:
    """Split the registry part of an image's name: ``host``, ``host:5000``, ``[::1]:5000``."""
    host, colon, port = domain.rpartition(":")
    if colon and port.isascii() and port.isdigit():
        number = int(port[:6])
        if not 0 < number < 65536:
            raise InvalidUrlError(f"invalid port in {domain[:200]!r}")
        return host.strip("[]"), number
    return domain.strip("[]"), None


def _domain(host: str) -> str:
    """Return the registered domain of a name; "" for addresses and single labels."""
    labels = host.split(".")
    if len(labels) < 2 or labels[-1].isdigit() or ":" in host:
        return ""
    wanted = 3 if len(labels[-1]) == 2 and labels[-2] in _SHARED else 2
    return ".".join(labels[-wanted:]) if len(labels) >= wanted else ""
