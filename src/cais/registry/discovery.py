"""What a repository has: its tags, and what refers to one of its manifests.

Spec: OCI distribution-spec 1.1, "Content Discovery", "Listing Referrers", "Referrers Tag Schema".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cais.registry.errors import ProtocolError, UnknownToRegistryError
from cais.spec import strict_json
from cais.spec.conversion import convert
from cais.spec.image import LIMIT_BYTES, Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.registry.origin import Url
    from cais.registry.repository import Repository
    from cais.spec.digest import Digest

_T = TypeVar("_T")

_TAGS_LIMIT = 100_000
_REFERRERS_LIMIT = 10_000
_PAGES_LIMIT = 1000
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


def tags(repository: Repository) -> list[str]:
    """Return every tag. ProtocolError: more than 100,000."""
    found: list[str] = []
    for url, body in _pages(repository, "tags/list"):
        found += _convert(url, body, _Tags).tags or []
        if len(found) > _TAGS_LIMIT:
            raise ProtocolError(f"{repository.path}: more than {_TAGS_LIMIT} tags")
    return found


def referrers(repository: Repository, subject: Digest) -> list[Descriptor]:
    """Return what refers to a manifest; of registries without that call, what a tag lists.

    Raises:
        ProtocolError: more than 10,000.

    """
    found: list[Descriptor] = []
    try:
        for url, body in _pages(repository, f"referrers/{subject}"):
            found += _convert(url, body, Index).manifests or []
            if len(found) > _REFERRERS_LIMIT:
                raise ProtocolError(f"{subject}: more than {_REFERRERS_LIMIT} referrers")
    except UnknownToRegistryError:
        return _tagged_referrers(repository, subject)
    return found


def _tagged_referrers(repository: Repository, subject: Digest) -> list[Descriptor]:
    try:
        index = repository.get_manifest(subject.replace(":", "-"))
    except UnknownToRegistryError:
        return []
    return _convert(subject, index.content, Index).manifests or []


def _pages(repository: Repository, place: str | Url) -> Iterator[tuple[Url, bytes]]:
    """Yield the pages of a list, each with its address."""
    for _ in range(_PAGES_LIMIT):
        with repository.get(place) as answer:
            body = answer.read(LIMIT_BYTES)
        yield answer.url, body
        link = _NEXT.search(answer.headers.get("link", ""))
        if link is None:
            return
        place = answer.url.join(link[1])
    raise ProtocolError(f"{repository.path}: a list of more than {_PAGES_LIMIT} pages")


def _convert(what: object, body: bytes, kind: type[_T]) -> _T:
    try:
        return convert(strict_json.loads(body, LIMIT_BYTES), kind)
    except (strict_json.InvalidJsonError, msgspec.ValidationError) as exc:
        raise ProtocolError(f"{what}: not such a list: {exc}") from exc
