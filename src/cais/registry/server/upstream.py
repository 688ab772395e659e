"""A registry that is mirrored, asked through our own client. Methods block.

Spec: OCI distribution-spec 1.1, "Pull", "Content Discovery".
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.registry import discovery
from cais.registry.access import Registries
from cais.registry.cancel import Cancel
from cais.registry.credentials import ANONYMOUS, Credentials
from cais.registry.errors import UnknownToRegistryError
from cais.registry.origin import parse_url
from cais.registry.server.errors import name_unknown
from cais.registry.settings import HUB, RegistrySettings
from cais.spec.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.registry.repository import FetchedManifest, Repository
    from cais.spec.digest import Digest
    from cais.spec.image import Descriptor

_REMEMBERED = 1000
_HUB_URLS = frozenset({"https://docker.io", "https://registry-1.docker.io"})


class Upstream:
    """The registry at ``url``, as the user of ``credentials`` sees it.

    Args:
        url: ``https://registry.example.com``; nothing but the registry itself.
        credentials: sent to it, and to the token server it names.

    """

    def __init__(self, url: str, credentials: Credentials = ANONYMOUS) -> None:
        """InvalidArgumentError: more than an origin."""
        parsed = parse_url(url)
        if parsed.target.strip("/"):
            raise InvalidArgumentError(f"{url}: a registry is expected, without a path")
        self.domain = HUB if str(parsed.origin) in _HUB_URLS else parsed.origin.netloc
        """What names begin with that are of this registry."""

        insecure = (self.domain,) if parsed.origin.scheme == "http" else ()
        self._registries = Registries(RegistrySettings(insecure=insecure))
        self._credentials = credentials
        self._lock = threading.Lock()
        self._known: dict[str, Repository] = {}
        self._cancel = Cancel()

    def close(self) -> None:
        """End what is under way."""
        self._cancel.set()
        self._registries.close()

    def get_manifest(self, repository: str, reference: str) -> FetchedManifest:
        """Fetch a manifest, verified. Raises as ``Repository.get_manifest``."""
        return self._repository(repository).get_manifest(reference)

    @contextlib.contextmanager
    def open_blob(
        self, repository: str, digest: Digest, offset: int, cancel: Cancel
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Give (position, pieces) of a blob, as ``Repository.open_blob``."""
        source = self._repository(repository).with_cancel(cancel)
        with source.open_blob(digest, offset) as opened:
            yield opened

    def tags(self, repository: str) -> list[str]:
        """Return every tag. RefusalError: NAME_UNKNOWN."""
        try:
            return discovery.tags(self._repository(repository))
        except UnknownToRegistryError as exc:
            raise name_unknown(repository) from exc

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return what refers to a manifest there."""
        return discovery.referrers(self._repository(repository), subject)

    def _repository(self, name: str) -> Repository:
        """Return a repository that keeps its tokens from one request to the next."""
        with self._lock:
            if found := self._known.get(name):
                return found
        reference = Reference(self.domain, name)
        found = next(
            iter(self._registries.repositories(reference, self._credentials, self._cancel))
        )
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            return self._known.setdefault(name, found)
