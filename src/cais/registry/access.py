"""From an image's name and a user's credentials to repositories that can be asked.

A registry is greeted first (``GET /v2/``): that tells whether it is one, by which scheme it
answers, and how it wants to know who asks.

Spec: OCI distribution-spec 1.1, "Determining Support".
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, TypeVar

from cais.errors import CaisError, DeadlineError, ExhaustedError, InternalError
from cais.registry.answers import Request
from cais.registry.auth import Authenticator
from cais.registry.credentials import ANONYMOUS
from cais.registry.errors import (
    ERROR_LIMIT_BYTES,
    RegistryError,
    RegistryUnreachableError,
    error_of,
)
from cais.registry.origin import Url
from cais.registry.proxies import NO_PROXIES
from cais.registry.repository import Repository
from cais.registry.search import search
from cais.registry.settings import HUB
from cais.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.registry.answers import Answer
    from cais.registry.cancel import Cancel
    from cais.registry.credentials import Credentials
    from cais.registry.origin import Origin
    from cais.registry.proxies import Proxies
    from cais.registry.search import Found
    from cais.registry.settings import RegistrySettings
    from cais.spec.reference import Reference

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_GREETING_ATTEMPTS = 2
_HUB_INDEX = "index.docker.io"


class Registries:
    """Every registry the settings allow. Thread-safe; connections are shared."""

    def __init__(self, settings: RegistrySettings, proxies: Proxies = NO_PROXIES) -> None:
        self.settings = settings
        self._transport = Transport(settings.context, proxies)
        self._lock = threading.Lock()
        self._plain: set[str] = set()  # registries that answered by http only

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def repositories(
        self,
        reference: Reference,
        credentials: Credentials,
        cancel: Cancel,
        *,
        can_push: bool = False,
    ) -> Iterator[Repository]:
        """Yield where an image may be: mirrors first, without credentials; then the registry.

        Places that do not answer are passed over.

        Raises:
            RegistryUnreachableError, RegistryError: of the last one, if none answered.
            ForbiddenError: the registry is blocked.

        """
        failure: Exception | None = None
        count = 0
        for endpoint in self.settings.endpoints(
            reference.domain, reference.path, for_push=can_push
        ):
            is_https = endpoint.origin.scheme == "https"
            if is_https and not endpoint.is_mirror and reference.domain in self._plain:
                continue
            own = credentials if endpoint.takes_credentials else ANONYMOUS
            auth = Authenticator(self._transport, endpoint.origin, own)
            try:
                self._greet(endpoint.origin, auth, cancel)
            except (RegistryUnreachableError, RegistryError) as error:
                failure = error
                continue
            if not is_https and not endpoint.is_mirror:
                with self._lock:
                    self._plain.add(reference.domain)
            count += 1
            yield Repository(
                self._transport, endpoint.origin, endpoint.path, auth, cancel, can_push=can_push
            )
            if not endpoint.is_mirror:
                return  # the same registry by http has nothing else
        if not count and failure is not None:
            raise failure

    def ask(
        self,
        reference: Reference,
        credentials: Credentials,
        cancel: Cancel,
        question: Callable[[Repository], _T],
    ) -> _T:
        """Return what ``question`` returns of the first place that it succeeds with.

        A mirror may lack what the registry has, break, or send something else than was named:
        after any failure the next place is asked, as by dockerd, except when the failure is of
        this machine or nobody waits any more.

        Raises:
            DeadlineError, ExhaustedError: at once.
            CaisError: whatever the question raised at the last place, which is the registry; or
                as ``repositories``.

        """
        failure: CaisError | None = None
        for source in self.repositories(reference, credentials, cancel):
            if failure is not None:
                log.info("%s: asking %s instead", failure, source.origin)
            try:
                return question(source)
            except RegistryError as error:  # one that has had enough of us is "exhausted" too
                failure = error
            except (DeadlineError, ExhaustedError):
                raise
            except CaisError as error:
                failure = error
        raise failure or InternalError(f"no registry to ask about {reference.familiar()}")

    def log_in(self, domain: str, credentials: Credentials, cancel: Cancel) -> str:
        """Check credentials; return the identity token to keep instead of the password, or "".

        Raises:
            LoginNeededError: they are wrong.

        """
        failure: Exception | None = None
        for endpoint in self.settings.endpoints(domain, for_push=True):
            own = credentials if endpoint.takes_credentials else ANONYMOUS
            auth = Authenticator(self._transport, endpoint.origin, own)
            try:
                self._greet(endpoint.origin, auth, cancel)
                self._prove(endpoint.origin, auth, cancel)
            except RegistryUnreachableError as error:
                failure = error
            else:
                return auth.identity_token
        assert failure is not None
        raise failure

    def search(
        self, domain: str, words: str, limit: int, credentials: Credentials, cancel: Cancel
    ) -> list[Found]:
        """Return what a registry finds; as ``registry.search.search``."""
        if domain == HUB:
            domain = _HUB_INDEX
        endpoints = self.settings.endpoints(domain, for_push=True)
        places = [
            (
                Url(one.origin, "/"),
                Authenticator(
                    self._transport,
                    one.origin,
                    credentials if one.takes_credentials else ANONYMOUS,
                ),
            )
            for one in endpoints
        ]
        return search(self._transport, places, words, limit, cancel)

    def _greet(self, origin: Origin, auth: Authenticator, cancel: Cancel) -> None:
        with self._ask(origin, cancel) as answer:
            if answer.status == 401:
                auth.learn(answer.headers.get("www-authenticate", ""), "")
            elif answer.status >= 300:
                body = b"".join(answer.pieces(ERROR_LIMIT_BYTES))[:ERROR_LIMIT_BYTES]
                raise error_of(answer.status, body, f"GET {origin}/v2/")
            answer.read(ERROR_LIMIT_BYTES)

    def _prove(self, origin: Origin, auth: Authenticator, cancel: Cancel) -> None:
        authorization = auth.authorize("", cancel)
        with self._ask(origin, cancel, authorization) as answer:
            body = answer.read(ERROR_LIMIT_BYTES)
            if answer.status >= 400:
                raise error_of(answer.status, body, f"GET {origin}/v2/")

    def _ask(self, origin: Origin, cancel: Cancel, authorization: str | None = None) -> Answer:
        headers = {"Authorization": authorization} if authorization else {}
        request = Request("GET", Url(origin, "/v2/"), headers)
        return self._transport.send(request, cancel, attempts=_GREETING_ATTEMPTS)
