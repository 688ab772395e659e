"""From an image's name and a user's credentials to repositories that can be asked.

A registry is greeted first (``GET /v2/``): that tells whether it is one, by which scheme it
answers, and how it wants to know who asks.

Spec: OCI distribution-spec 1.1, "Determining Support".
"""

from __future__ import annotations

import functools
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
    from cais.registry.settings import Endpoint, RegistrySettings
    from cais.spec.reference import Reference

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_GREETING_ATTEMPTS = 2
_HUB_INDEX = "index.docker.io"


class Registries:
    """Every registry the settings allow. Thread-safe; connections are shared."""

    def __init__(self, settings: RegistrySettings, proxies: Proxies = NO_PROXIES) -> None:
        self.settings = settings
        self._proxies = proxies
        self._transport = Transport(settings.context, proxies)
        self._unverified: dict[Origin, Transport] = {}  # by whose certificate it does not look at
        self._lock = threading.Lock()
        self._plain: set[str] = set()  # insecure hosts that answered by http only

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            transports = [self._transport, *self._unverified.values()]
        for transport in transports:
            transport.close()

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
            origin = endpoint.origin
            is_https = origin.scheme == "https"
            if is_https and endpoint.is_insecure and origin.netloc in self._plain:
                continue
            transport, auth = self._way_to(endpoint, credentials)
            try:
                _greet(transport, origin, auth, cancel)
            except (RegistryUnreachableError, RegistryError) as error:
                failure = error
                continue
            if not is_https and not endpoint.is_mirror:
                with self._lock:
                    self._plain.add(origin.netloc)
            count += 1
            yield Repository(transport, origin, endpoint.path, auth, cancel, can_push=can_push)
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
            transport, auth = self._way_to(endpoint, credentials)
            try:
                _greet(transport, endpoint.origin, auth, cancel)
                _prove(transport, endpoint.origin, auth, cancel)
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
        places = [(one.origin, *self._way_to(one, credentials)) for one in endpoints]
        return search(places, words, limit, cancel)

    def _way_to(
        self, endpoint: Endpoint, credentials: Credentials
    ) -> tuple[Transport, Authenticator]:
        """Return what carries requests to an endpoint, and who we are there.

        The same registry may be insecure by one rule and not by another, so those whose
        certificate is not looked at have connections of their own. Wherever they lead to, others
        are verified.
        """
        origin, transport = endpoint.origin, self._transport
        if endpoint.is_insecure:
            context = functools.partial(self.settings.context, unverified=origin)
            with self._lock:
                transport = self._unverified.setdefault(origin, Transport(context, self._proxies))
        own = credentials if endpoint.takes_credentials else ANONYMOUS
        return transport, Authenticator(transport, origin, own)


def _greet(transport: Transport, origin: Origin, auth: Authenticator, cancel: Cancel) -> None:
    with _ask(transport, origin, cancel) as answer:
        if answer.status == 401:
            auth.learn(answer.headers.get("www-authenticate", ""), "")
        elif answer.status >= 300:
            body = b"".join(answer.pieces(ERROR_LIMIT_BYTES))[:ERROR_LIMIT_BYTES]
            raise error_of(answer.status, body, f"GET {origin}/v2/")
        answer.read(ERROR_LIMIT_BYTES)


def _prove(transport: Transport, origin: Origin, auth: Authenticator, cancel: Cancel) -> None:
    authorization = auth.authorize("", cancel)
    with _ask(transport, origin, cancel, authorization) as answer:
        body = answer.read(ERROR_LIMIT_BYTES)
        if answer.status >= 400:
            raise error_of(answer.status, body, f"GET {origin}/v2/")


def _ask(
    transport: Transport, origin: Origin, cancel: Cancel, authorization: str | None = None
) -> Answer:
    headers = {"Authorization": authorization} if authorization else {}
    request = Request("GET", Url(origin, "/v2/"), headers)
    return transport.send(request, cancel, attempts=_GREETING_ATTEMPTS)
