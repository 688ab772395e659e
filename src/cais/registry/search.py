"""Looking for images by words, at registries that offer it.

This is the one thing left of Docker's first registry protocol; Docker's hub has it, and few others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.registry.answers import Request, raise_error
from cais.registry.errors import ProtocolError, RegistryUnreachableError
from cais.registry.origin import Url
from cais.registry.settings import HUB
from cais.spec import strict_json
from cais.spec.conversion import convert
from cais.spec.image import LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cais.registry.answers import Answer
    from cais.registry.auth import Authenticator
    from cais.registry.cancel import Cancel
    from cais.registry.origin import Origin
    from cais.registry.transport import Transport

DEFAULT_LIMIT, MAX_LIMIT = 25, 100
_FILTERS = frozenset({"is-official", "is-automated", "stars"})
_ABSENT = frozenset({404, 405, 501})


class Found(msgspec.Struct):
    """One repository that was found."""

    name: str
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False

    def shown(self) -> dict[str, Any]:
        """Return it as the API words it."""
        return {
            "name": self.name,
            "description": self.description or "",
            "star_count": self.star_count,
            "is_official": self.is_official,
            "is_automated": self.is_automated,
        }


class _Answer(msgspec.Struct):
    results: list[Found] = []


def split_term(term: str) -> tuple[str, str]:
    """Split what is searched for into a registry and words, in Docker's way.

    Raises:
        InvalidArgumentError: it begins with a scheme.

    """
    if term.startswith(("http://", "https://")):
        raise InvalidArgumentError(
            f"invalid repository name: repository name ({term[:200]}) should not have a scheme"
        )
    head, slash, rest = term.partition("/")
    is_host = slash and ("." in head or ":" in head or head == "localhost")
    if not is_host or head in {HUB, f"index.{HUB}"}:
        return HUB, (rest if is_host else term).removeprefix("library/")
    return head, rest


def check_limit(limit: int) -> int:
    """Return how many to ask for, 0 meaning as many as usual. InvalidArgumentError."""
    if limit and not 1 <= limit <= MAX_LIMIT:
        raise InvalidArgumentError(f"limit {limit} is outside the range of [1, {MAX_LIMIT}]")
    return limit or DEFAULT_LIMIT


def chooser(filters: Mapping[str, Sequence[str]]) -> Callable[[Found], bool]:
    """Return what tells whether something found is wanted: ``is-official``, ``stars``, ....

    Raises:
        InvalidArgumentError: Docker's texts.

    """
    for name in filters:
        if name not in _FILTERS:
            raise InvalidArgumentError(f"invalid filter '{name}'")
    is_official = _truth(filters, "is-official")
    is_automated = _truth(filters, "is-automated")
    stars = max((_count(text) for text in filters.get("stars", ())), default=0)

    def is_wanted(found: Found) -> bool:
        return (
            found.star_count >= stars
            and is_official in (None, found.is_official)
            and is_automated in (None, found.is_automated)
        )

    return is_wanted


def search(
    places: Iterable[tuple[Origin, Transport, Authenticator]],
    words: str,
    limit: int,
    cancel: Cancel,
) -> list[Found]:
    """Return what the first place that answers has found.

    Args:
        places: a registry by its schemes, the preferred one first; what carries the requests
            there, and who we are.
        words: what is searched for.
        limit: at most so many.
        cancel: ends it.

    Raises:
        UnsupportedError: the registry offers no search.
        RegistryError, RegistryUnreachableError: it refuses, or does not answer.

    """
    failure: Exception | None = None
    target = f"/v1/search?{urlencode({'q': words, 'n': limit})}"
    for origin, transport, auth in places:
        try:
            return _ask(transport, Url(origin, target), auth, cancel)[:limit]
        except RegistryUnreachableError as error:
            failure = error
    assert failure is not None, "a registry has at least one place"
    raise failure


def _truth(filters: Mapping[str, Sequence[str]], name: str) -> bool | None:
    values = set(filters.get(name, ()))
    if not values:
        return None
    if values <= {"1", "true"}:
        return True
    if values <= {"0", "false"}:
        return False
    raise InvalidArgumentError(f"invalid filter '{name}=[{' '.join(sorted(values))[:200]}]'")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgumentError(f"invalid filter 'stars=[{text[:200]}]'")
    return int(text)


def _ask(transport: Transport, url: Url, auth: Authenticator, cancel: Cancel) -> list[Found]:
    answer = _send(transport, url, auth, cancel)
    if answer.status == 401 and auth.learn(answer.headers.get("www-authenticate", ""), ""):
        answer.close()
        answer = _send(transport, url, auth, cancel)
    with answer:
        if answer.status in _ABSENT:
            raise UnsupportedError(f"registry {url.origin.netloc} offers no search")
        raise_error(answer, f"GET {url}")
        body = answer.read(LIMIT_BYTES)
    try:
        return convert(strict_json.loads(body, LIMIT_BYTES), _Answer).results
    except (strict_json.InvalidJsonError, msgspec.ValidationError) as exc:
        raise ProtocolError(f"{url.origin}: not an answer to a search: {exc}") from exc


def _send(transport: Transport, url: Url, auth: Authenticator, cancel: Cancel) -> Answer:
    authorization = auth.authorize("", cancel)
    headers = {"Authorization": authorization} if authorization else {}
    return transport.send(Request("GET", url, headers), cancel, attempts=2)
