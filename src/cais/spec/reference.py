"""Image references: ``[domain/]path[:tag][@digest]`` and their short, familiar form.

``busybox`` means ``docker.io/library/busybox:latest``. A repository is kept in full; users see
the familiar form.

Spec: distribution reference grammar; OCI distribution-spec 1.1 "Pulling manifests" (names, tags).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Self

from cais.errors import InvalidArgumentError
from cais.spec.digest import (
    Digest,
    InvalidDigestError,
    UnsupportedDigestError,
    parse_digest,
)

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library"
_LEGACY_DOMAIN = "index.docker.io"
_NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_is_path = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*").fullmatch
_is_domain = re.compile(_DOMAIN).fullmatch
_is_tag = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}").fullmatch
_is_bare_digest = re.compile(r"[a-f0-9]{64}").fullmatch


class InvalidReferenceError(InvalidArgumentError):
    """The text names no image; the message is Docker's."""

    def __init__(self, why: str = "") -> None:
        super().__init__(f"invalid reference format{f': {why}' if why else ''}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, and perhaps a tag and a digest in it."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        """Domain and path: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as users write it: ``busybox``."""
        return familiar_repository(self.repository)

    def __str__(self) -> str:
        return f"{self.repository}{self._suffix()}"

    def familiar(self) -> str:
        """Return the reference as users write it."""
        return f"{self.familiar_repository}{self._suffix()}"

    def with_default_tag(self) -> Self:
        """Add ``latest`` where there is neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def _suffix(self) -> str:
        return f"{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"


def parse_reference(text: str) -> Reference:
    """Read a reference in familiar or full form; no tag is added.

    Raises:
        InvalidReferenceError: with Docker's text.

    """
    if _is_bare_digest(text):
        raise InvalidReferenceError("cannot specify 64-byte hexadecimal strings")
    name, digest = _split_digest(text)
    name, tag = _split_tag(name)
    domain, path = split_domain(name)
    if path != path.lower():
        raise InvalidReferenceError(f"repository name ({path}) must be lowercase")
    if not _is_domain(domain) or not _is_path(path):
        raise InvalidReferenceError
    if len(path) > _NAME_LIMIT:
        raise InvalidReferenceError(
            f"repository name must not be more than {_NAME_LIMIT} characters"
        )
    return Reference(domain, path, tag, digest)


def parse_tag(text: str) -> str:
    """Read a tag alone."""
    if not _is_tag(text):
        raise InvalidReferenceError("invalid tag format")
    return text


def parse_path(text: str) -> str:
    """Read a repository's name as its registry knows it, without a domain."""
    if len(text) > _NAME_LIMIT or not _is_path(text):
        raise InvalidReferenceError("invalid repository name")
    return text


def split_domain(name: str) -> tuple[str, str]:
    """Split a name at its registry: the first component if it looks like a host."""
    first, slash, rest = name.partition("/")
    is_host = any(mark in first for mark in ".:") or first == "localhost" or first != first.lower()
    if not slash or not is_host:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{_OFFICIAL}/{path}"
    return domain, path


def familiar_repository(repository: str) -> str:
    """Return a full repository name as users write it: short where that means the same."""
    domain, _, path = repository.partition("/")
    if domain != DEFAULT_DOMAIN:
        return repository
    for short in (path.removeprefix(f"{_OFFICIAL}/"), path):
        if split_domain(short) == (domain, path):
            return short
    return repository


def _split_digest(text: str) -> tuple[str, Digest | None]:
    name, at, digest = text.partition("@")
    if not at:
        return text, None
    try:
        return name, parse_digest(digest)
    except UnsupportedDigestError as exc:
        raise InvalidReferenceError(str(exc)) from exc
    except InvalidDigestError as exc:
        raise InvalidReferenceError from exc


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, None  # the colon, if any, belongs to a port
    if not head or not _is_tag(tag):
        raise InvalidReferenceError
    return head, tag
