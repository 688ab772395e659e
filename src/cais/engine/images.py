"""Images for clients: the image room through the pool, with events and use by containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence


class Images:
    """``/images``."""

    async def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - the API's word
        filters: Mapping[str, Sequence[str]] | None = None,
        shared_size: bool = False,
    ) -> list[dict[str, Any]]:
        """Return the summaries of ``GET /images/json``, newest first."""
        raise NotImplementedError

    async def inspect(self, ref: str) -> dict[str, Any]:
        """Return the document of ``GET /images/{name}/json``. ImageNotFoundError."""
        raise NotImplementedError

    async def history(self, ref: str) -> list[dict[str, Any]]:
        """Return the layers' history, newest first."""
        raise NotImplementedError

    async def tag(self, ref: str, repository: str, tag: str | None = None) -> None:
        """Give an image another name; a name taken moves over."""
        raise NotImplementedError

    async def remove(
        self, ref: str, *, force: bool = False, prune: bool = True
    ) -> list[dict[str, str]]:
        """Untag, and delete what no name is left of; ``[{Untagged}, {Deleted}]``.

        Raises:
            ConflictError: containers use it, or several repositories name it (Docker's texts).

        """
        raise NotImplementedError

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Delete dangling (or with ``dangling=false`` all unused) images."""
        raise NotImplementedError

    def load(
        self, source: AsyncIterator[bytes], *, quiet: bool = False
    ) -> AsyncIterator[dict[str, Any]]:
        """Load a docker-archive or OCI layout; yields Docker's progress messages."""
        raise NotImplementedError

    def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]:
        """Write images as one archive; yields its bytes."""
        raise NotImplementedError

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> str:
        """Make an image of one root file system archive; return its id."""
        raise NotImplementedError
