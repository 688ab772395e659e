"""Which registries there are, and how each is reached.

From ``/etc/cais/registries.toml``, the daemon's own options and ``certs.d``; of several rules the
one with the longest name counts::

    default = "registry.example.com/hub"     # where the images of docker.io are: as a location
    [[registry]]
    name = "docker.io"                       # the registry in an image's name, or "docker.io/team"
    mirrors = ["https://mirror.example.com"] # asked first, without the user's credentials
    location = "hub.example.com/team"        # where it really is; this stands for the whole name
    insecure = true                          # http, and TLS without verification, are accepted
    blocked = true

A user's credentials are for the registry that was named: a location run by somebody else, as far
as names tell, is asked without them.

Spec: docker daemon.json ("registry-mirrors", "insecure-registries"); docs "Verify repository
client with certificates" (certs.d).
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from cais.errors import ForbiddenError, InvalidArgumentError
from cais.registry.origin import Origin, check_mirror, make_origin, parse_url, split_host
from cais.registry.trust import verifying_context
from cais.spec.conversion import convert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HUB = "docker.io"
_HUB_LOCATION = "registry-1.docker.io"


class RegistryRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a user says about one registry, or what is below a name in it."""

    name: str
    location: str = ""
    mirrors: list[str] = []
    insecure: bool = False
    blocked: bool = False


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    default: str = ""
    registry: list[RegistryRule] = []


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a repository may be, and what it is called there."""

    origin: Origin
    path: str
    is_mirror: bool = False
    takes_credentials: bool = True
    """Whether it is run by whom the user's credentials are for."""

    is_insecure: bool = False
    """Whether any certificate will do there, for this repository."""


@dataclass(slots=True)
class RegistrySettings:
    """All rules together; plain values, made once."""

    rules: dict[str, RegistryRule] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    """Of docker.io."""

    insecure: tuple[str, ...] = ()
    """``host:port`` or networks in CIDR form."""

    takes_foreign: tuple[str, ...] = ()
    """As ``insecure``: registries that foreign layers are pushed to like all others."""

    certificates: tuple[Path, ...] = ()
    """Directories with a ``<host:port>/*.crt`` in them, later ones first."""

    default: str = ""
    """Where the images of docker.io are."""

    def endpoints(self, domain: str, path: str = "", *, for_push: bool = False) -> list[Endpoint]:
        """Return where to ask, in this order.

        Args:
            domain: the registry in a full image name.
            path: the repository there; "": the registry as such.
            for_push: leave the mirrors out, which are read-only.

        Raises:
            ForbiddenError: the registry is blocked.
            InvalidUrlError: a name or mirror that is no host.

        """
        rule = self._rule(f"{domain}/{path}" if path else domain)
        if rule.blocked:
            raise ForbiddenError(f"registry {rule.name} is blocked by the configuration")
        mirrors = [*rule.mirrors, *(self.mirrors if domain == HUB else ())]
        found = [
            Endpoint(parse_url(text).origin, path, is_mirror=True, takes_credentials=False)
            for text in mirrors
            if not for_push
        ]
        location, there = self._location(rule, domain, path)
        host, port = split_host(location)
        named = _HUB_LOCATION if domain == HUB else domain
        own = make_origin("https", *split_host(named))
        is_insecure = rule.insecure or self.is_insecure(domain) or self.is_insecure(location)
        for scheme in ("https", "http") if is_insecure else ("https",):
            origin = make_origin(scheme, host, port)
            is_own = location == named or origin._replace(scheme="https").is_kin_of(own)
            found.append(Endpoint(origin, there, takes_credentials=is_own, is_insecure=is_insecure))
        return found

    def _rule(self, name: str) -> RegistryRule:
        """Return the rule for a registry or repository; one that says nothing if there is none."""
        fitting = [rule for rule in self.rules.values() if f"{name}/".startswith(f"{rule.name}/")]
        domain = name.partition("/")[0]
        return max(fitting, key=lambda rule: len(rule.name), default=RegistryRule(domain))

    def _location(self, rule: RegistryRule, domain: str, path: str) -> tuple[str, str]:
        """Return the host to ask, and the name of the repository there."""
        place = rule.location
        if not place and domain == HUB:
            rule, place = RegistryRule(HUB), self.default or _HUB_LOCATION
        if not place:
            return domain, path
        host, _, prefix = place.partition("/")
        rest = f"{domain}/{path}"[len(rule.name) :].strip("/")
        return host, "/".join(part for part in (prefix.strip("/"), rest) if part)

    def is_insecure(self, domain: str) -> bool:
        """Whether a registry may be reached by http and with any certificate.

        Loopback addresses are, as in Docker: nobody else is on the way.
        """
        rule = self.rules.get(domain)
        if rule is not None and rule.insecure:
            return True
        host, _ = split_host(domain)
        return make_origin("https", host).is_loopback or _lists(self.insecure, domain)

    def takes_foreign_layers(self, domain: str) -> bool:
        """Whether foreign layers are pushed to a registry like all others."""
        return _lists(self.takes_foreign, domain)

    def context(self, origin: Origin, unverified: Origin | None = None) -> ssl.SSLContext:
        """Make the TLS settings for one origin.

        Args:
            origin: who is to be reached.
            unverified: who may have any certificate, besides those insecure by their name.

        Raises:
            InvalidArgumentError: a certificate of certs.d cannot be used.

        """
        context = verifying_context()
        if origin == unverified or self.is_insecure(origin.netloc):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for directory in self.certificates:
            _load_certificates(context, directory / origin.netloc)
        return context


def load_settings(
    path: Path,
    *,
    mirrors: Sequence[str] = (),
    insecure: Sequence[str] = (),
    takes_foreign: Sequence[str] = (),
    certificates: Sequence[Path] = (),
) -> RegistrySettings:
    """Read the rules of a file, which need not exist, and add the daemon's options.

    Raises:
        InvalidArgumentError: the file or an option is malformed.

    """
    try:
        document = convert(tomllib.loads(path.read_text()), _Document)
    except FileNotFoundError:
        document = _Document()
    except (OSError, ValueError, msgspec.ValidationError) as exc:
        raise InvalidArgumentError(f"{path}: {exc}") from exc
    for mirror in (*mirrors, *(mirror for rule in document.registry for mirror in rule.mirrors)):
        check_mirror(mirror)
    rules = {rule.name: rule for rule in document.registry}
    return RegistrySettings(
        rules,
        tuple(mirrors),
        tuple(insecure),
        tuple(takes_foreign),
        tuple(certificates),
        document.default,
    )


def _lists(entries: Sequence[str], domain: str) -> bool:
    """Whether a list of ``host``, ``host:port`` and networks names a registry."""
    host, _ = split_host(domain)
    if domain in entries or host in entries:
        return True
    for text in entries:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(text):
                return True
    return False


def _load_certificates(context: ssl.SSLContext, directory: Path) -> None:
    """Trust the authorities of a directory and offer its client certificates."""
    try:
        for path in sorted(directory.glob("*.crt")):
            context.load_verify_locations(path)
        for path in sorted(directory.glob("*.cert")):
            context.load_cert_chain(path, path.with_suffix(".key"))
    except OSError as exc:  # an SSLError is one, too
        raise InvalidArgumentError(f"{directory}: {exc}") from exc
