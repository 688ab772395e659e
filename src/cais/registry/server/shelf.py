"""Where what is served comes from: the registry's own storage, with something behind it perhaps.

Behind it may be the images of an engine (``Lender``: a look into another program's store), or a
registry that is mirrored (``upstream``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cais.registry.server.errors import RefusalError, name_unknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cais.registry.server.catalog import ManifestRow
    from cais.registry.server.pool import Run
    from cais.registry.server.storage import HeldManifest, OpenBlob, Storage
    from cais.spec.digest import Digest


class ArrivingBlob(Protocol):
    """A blob that is being downloaded."""

    @property
    def size_bytes(self) -> int:
        """The whole blob's size."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield it as it comes; the last piece once it was verified."""
        ...

    def release(self) -> None:
        """Say that nobody will read (on)."""
        ...


class Shelf(Protocol):
    """What can be read of repositories."""

    async def manifest(self, repository: str, reference: str) -> HeldManifest:
        """Return a manifest by tag or digest. RefusalError: MANIFEST_UNKNOWN."""
        ...

    async def blob(self, repository: str, digest: Digest) -> OpenBlob | ArrivingBlob:
        """Return a blob. RefusalError: BLOB_UNKNOWN."""
        ...

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """Return a blob's size, without bringing it here. RefusalError: BLOB_UNKNOWN."""
        ...

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str, after: str, limit: int
    ) -> list[ManifestRow]:
        """Return manifests about another one, as ``Catalog.referrers``."""
        ...

    async def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` tags behind ``after``. RefusalError: NAME_UNKNOWN."""
        ...

    async def repositories(self, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` names of repositories behind ``after``."""
        ...


class Lender(Protocol):
    """Content of another program's, to be read and never changed. Methods block."""

    def find_manifest(self, repository: str, reference: str) -> HeldManifest | None:
        """Return a manifest by tag or digest."""
        ...

    def open_blob(self, repository: str, digest: Digest) -> OpenBlob | None:
        """Return a blob of one of the repository's images."""
        ...

    def tags(self, repository: str) -> list[str]:
        """Return every tag."""
        ...

    def repositories(self) -> list[str]:
        """Return the name of every repository."""
        ...

    def close(self) -> None:
        """Let go of what it holds; the server that was given it does so at its end."""
        ...


class OwnShelf:
    """The storage alone."""

    def __init__(self, storage: Storage, run: Run) -> None:
        self._storage = storage
        self._run = run

    async def manifest(self, repository: str, reference: str) -> HeldManifest:
        """Return a manifest by tag or digest. RefusalError: MANIFEST_UNKNOWN."""
        return await self._run(self._storage.read_manifest, repository, reference)

    async def blob(self, repository: str, digest: Digest) -> OpenBlob | ArrivingBlob:
        """Return a blob. RefusalError: BLOB_UNKNOWN."""
        return await self._run(self._storage.open_blob, repository, digest)

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """Return a blob's size. RefusalError: BLOB_UNKNOWN."""
        return await self._run(self._size, repository, digest)

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str, after: str, limit: int
    ) -> list[ManifestRow]:
        """Return manifests about another one, as ``Catalog.referrers``."""
        find = self._storage.catalog.referrers
        return await self._run(find, repository, subject, artifact_type, after, limit)

    async def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` tags behind ``after``. RefusalError: NAME_UNKNOWN."""
        return await self._run(self._tags, repository, after, limit)

    async def repositories(self, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` names of repositories behind ``after``."""
        return await self._run(self._storage.catalog.repositories, after, limit)

    def _size(self, repository: str, digest: Digest) -> int:
        blob = self._storage.open_blob(repository, digest)  # a row alone is no promise
        blob.file.close()
        return blob.size_bytes

    def _tags(self, repository: str, after: str, limit: int) -> list[str]:
        if not self._storage.catalog.has_repository(repository):
            raise name_unknown(repository)
        return self._storage.catalog.tags(repository, after, limit)


class LendingShelf:
    """The storage, and behind it what a lender has; a tag pushed here hides a lent one."""

    def __init__(self, storage: Storage, lender: Lender, run: Run) -> None:
        self._own = OwnShelf(storage, run)
        self._lender = lender
        self._run = run

    async def manifest(self, repository: str, reference: str) -> HeldManifest:
        """Return a manifest by tag or digest. RefusalError: MANIFEST_UNKNOWN."""
        try:
            return await self._own.manifest(repository, reference)
        except RefusalError:
            found = await self._run(self._lender.find_manifest, repository, reference)
            if found is None:
                raise
            return found

    async def blob(self, repository: str, digest: Digest) -> OpenBlob | ArrivingBlob:
        """Return a blob. RefusalError: BLOB_UNKNOWN."""
        try:
            return await self._own.blob(repository, digest)
        except RefusalError:
            found = await self._run(self._lender.open_blob, repository, digest)
            if found is None:
                raise
            return found

    async def blob_size(self, repository: str, digest: Digest) -> int:
        """Return a blob's size. RefusalError: BLOB_UNKNOWN."""
        try:
            return await self._own.blob_size(repository, digest)
        except RefusalError:
            found = await self._run(self._lender.open_blob, repository, digest)
            if found is None:
                raise
            found.file.close()
            return found.size_bytes

    async def referrers(
        self, repository: str, subject: Digest, artifact_type: str, after: str, limit: int
    ) -> list[ManifestRow]:
        """Return manifests about another one, as ``Catalog.referrers``."""
        return await self._own.referrers(repository, subject, artifact_type, after, limit)

    async def tags(self, repository: str, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` tags behind ``after``. RefusalError: NAME_UNKNOWN."""
        lent = await self._run(self._lender.tags, repository)
        try:
            own = await self._own.tags(repository, after, limit)
        except RefusalError:
            if not lent:
                raise
            own = []
        behind = tag_order(after)
        rest = {name for name in lent if tag_order(name) > behind}
        return sorted(rest.union(own), key=tag_order)[:limit]

    async def repositories(self, after: str, limit: int) -> list[str]:
        """Return at most ``limit`` names of repositories behind ``after``."""
        own = await self._own.repositories(after, limit)
        lent = await self._run(self._lender.repositories)
        return sorted({*own, *(name for name in lent if name > after)})[:limit]


def tag_order(name: str) -> tuple[str, str]:
    """Return what tags are sorted by: without regard to case, then with it."""
    return name.lower(), name
