"""Images in registries: brought here, sent there, asked about. Everything blocks its thread.

A registry may be reached in several ways, mirrors among them; which one has what is wanted is found
out here, and what a registry refuses is said in Docker's words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from cais.errors import NotFoundError
from cais.images.downloads import Downloads
from cais.images.offers import platforms_of
from cais.images.policy import load_policy
from cais.images.pulling import Pull, label_of
from cais.images.pushing import push
from cais.registry.access import Registries
from cais.registry.discovery import tags
from cais.registry.errors import PasswordNeededError, RegistryError
from cais.registry.search import check_limit, chooser, split_term
from cais.registry.settings import HUB, load_settings
from cais.spec.reference import Reference, parse_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cais.images.records import ImageRecord
    from cais.images.store import ImageStore
    from cais.images.transfers import Report
    from cais.registry.cancel import Cancel
    from cais.registry.credentials import Credentials
    from cais.registry.options import RegistryOptions
    from cais.registry.repository import Repository
    from cais.spec.platform import Platform

_T = TypeVar("_T")

_DENIED = frozenset({"DENIED", "UNAUTHORIZED"})


class RemoteImages:
    """The registries, as one image store sees them. Methods may be called from several threads.

    Every method raises RegistryError for a refusal, RegistryUnreachableError without an answer and
    DeadlineError when ``cancel`` was set.

    Args:
        store: where images come from and go to.
        options: the daemon's; the files they name are read now.

    Raises:
        InvalidArgumentError: one of the files is malformed.

    """

    def __init__(self, store: ImageStore, options: RegistryOptions) -> None:
        self._store = store
        self._options = options
        self._settings = load_settings(
            options.file,
            mirrors=options.mirrors,
            insecure=options.insecure,
            takes_foreign=options.takes_foreign,
            certificates=options.certificates,
        )
        self._registries = Registries(self._settings, options.proxies)
        self._downloads = Downloads(store.content, options.downloads)

    def close(self) -> None:
        """Close idle connections."""
        self._registries.close()

    def pull(
        self,
        wanted: Reference,
        platform: Platform | None,
        credentials: Credentials,
        report: Report,
        cancel: Cancel,
    ) -> bool:
        """Bring an image in, from the first place that has it.

        Returns:
            Whether its name meant something else before.

        Raises:
            NotFoundError: no such image, or nobody may see it: Docker's texts.
            ForbiddenError: the policy does not allow it.

        """
        policy = load_policy(self._options.policy_file)  # every time: it may have become stricter

        def pull(source: Repository) -> bool:
            one = Pull(
                self._store,
                self._downloads,
                source,
                wanted,
                platform=platform,
                policy=policy,
                report=report,
                cancel=cancel,
            )
            return one.run().is_new

        return self._ask(wanted, credentials, cancel, pull)

    def each_tag(
        self, wanted: Reference, credentials: Credentials, cancel: Cancel
    ) -> list[Reference]:
        """Return the names of everything a repository has tags for."""

        def names(source: Repository) -> list[Reference]:
            return [Reference(wanted.domain, wanted.path, parse_tag(tag)) for tag in tags(source)]

        return self._ask(wanted, credentials, cancel, names)

    def push(
        self,
        images: Sequence[tuple[Reference, ImageRecord]],
        credentials: Credentials,
        report: Report,
        cancel: Cancel,
    ) -> None:
        """Send images of one repository, each under its name."""
        first = images[0][0]
        target = next(self._registries.repositories(first, credentials, cancel, can_push=True))
        for reference, record in images:
            done = push(
                self._store,
                record,
                target,
                reference,
                report=report,
                cancel=cancel,
                with_foreign=self._settings.takes_foreign_layers(reference.domain),
                parallel=self._options.uploads,
            )
            report({"status": f"{done.tag}: digest: {done.digest} size: {done.size_bytes}"})
            aux = {"Tag": done.tag, "Digest": done.digest, "Size": done.size_bytes}
            report({"progressDetail": {}, "aux": aux})

    def describe(
        self, reference: Reference, credentials: Credentials, cancel: Cancel
    ) -> dict[str, Any]:
        """Return ``{"Descriptor", "Platforms"}`` of what a registry has under a name."""

        def description(source: Repository) -> dict[str, Any]:
            found = source.get_manifest(label_of(reference.with_default_tag()))
            descriptor = {
                "mediaType": found.media_type,
                "digest": found.digest,
                "size": len(found.content),
            }
            platforms = platforms_of(found, source, reference)
            return {"Descriptor": descriptor, "Platforms": platforms}

        return self._ask(reference, credentials, cancel, description)

    def log_in(self, server: str, credentials: Credentials, cancel: Cancel) -> str:
        """Check credentials; return the identity token to keep instead of the password, or "".

        Args:
            server: a ``serveraddress``: a host, or the URL of Docker's old index.

        Raises:
            LoginNeededError: they are wrong.

        """
        return self._registries.log_in(domain_of(server), credentials, cancel)

    def search(
        self,
        term: str,
        limit: int,
        filters: Mapping[str, Sequence[str]],
        credentials: Credentials,
        cancel: Cancel,
    ) -> list[dict[str, Any]]:
        """Return the repositories a registry finds, as the API words them.

        Args:
            term: words, perhaps after a registry's name.
            limit: at most so many; 0: as many as usual.
            filters: ``is-official``, ``is-automated``, ``stars``; of what the registry found.

        Raises:
            InvalidArgumentError: Docker's texts about limit and filters.
            UnsupportedError: the registry offers no search.

        """
        limit, is_wanted = check_limit(limit), chooser(filters)
        domain, words = split_term(term)
        found = self._registries.search(domain, words, limit, credentials, cancel)
        return [one.shown() for one in found if is_wanted(one)]

    def _ask(
        self,
        reference: Reference,
        credentials: Credentials,
        cancel: Cancel,
        question: Callable[[Repository], _T],
    ) -> _T:
        """Ask as ``Registries.ask``; refusals are in the words of ``docker pull``."""

        def worded(source: Repository) -> _T:
            try:
                return question(source)
            except RegistryError as error:
                raise _refused(reference, error) from error

        return self._registries.ask(reference, credentials, cancel, worded)


def domain_of(server: str) -> str:
    """Return the registry of a ``serveraddress``."""
    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    return HUB if host in ("", f"index.{HUB}", f"registry-1.{HUB}") else host


def _refused(wanted: Reference, error: RegistryError) -> Exception:
    """Return a refusal in the words of ``docker pull``."""
    if isinstance(error, PasswordNeededError):
        return error
    repository = wanted.familiar_repository
    if error.status == 401 or _DENIED.intersection(error.codes):
        text = f"pull access denied for {repository}, repository does not exist or may require"
        return NotFoundError(f"{text} 'docker login': {error}")
    if "NAME_UNKNOWN" in error.codes:
        return NotFoundError(f"repository {repository} not found: {error}")
    if error.status == 404 and "BLOB_UNKNOWN" not in error.codes:
        return NotFoundError(f"manifest for {wanted.familiar()} not found: {error}")
    return error
