"""Containers as things: create, find, describe, rename, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cais.engine.table import Container
    from cais.spec.container import CreateBody, UpdateBody

Filters = "Mapping[str, Sequence[str]]"


class Containers:
    """``/containers`` but for what moves a container between states (``lifecycle``)."""

    async def create(
        self, name: str | None, body: CreateBody, platform: str | None = None
    ) -> tuple[str, list[str]]:
        """Create a container from an image; return its id and warnings.

        Args:
            name: without or with the leading slash; None or "" for an automatic one.
            body: the decoded request of ``POST /containers/create``.
            platform: ``os[/arch[/variant]]``, "" or None for whatever the image is.

        Raises:
            ImageNotFoundError: ``No such image: x``.
            NameConflictError: the name is taken (409, Docker's text).
            InvalidArgumentError: bad name, no command, bad option.
            UnsupportedError: an option this version does not have, named.

        """
        raise NotImplementedError

    def resolve(self, ref: str) -> Container:
        """Find a container: full id, then name, then unambiguous id prefix. Not a coroutine.

        Raises:
            ContainerNotFoundError: ``No such container: <ref>``.
            InvalidArgumentError: the prefix fits several ids.

        """
        raise NotImplementedError

    async def inspect(self, ref: str, *, size: bool = False) -> dict[str, Any]:
        """Return the document of ``GET /containers/{id}/json`` in its v1.51 shape."""
        raise NotImplementedError

    async def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - the API's word
        limit: int | None = None,
        size: bool = False,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the summaries of ``GET /containers/json``, newest first.

        Args:
            all: also those that do not run (a status filter or ``limit`` implies it).
            limit: at most so many of the newest, running or not.
            size: with SizeRw and SizeRootFs.
            filters: name to values, e.g. ``{"status": ["exited"], "label": ["a=b"]}``.

        Raises:
            InvalidArgumentError: unknown filter or value; ``before``/``since`` of nothing.

        """
        raise NotImplementedError

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name.

        Raises:
            InvalidArgumentError: empty or malformed name, or the one it already has.
            NameConflictError: the name is taken.

        """
        raise NotImplementedError

    async def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container, with ``volumes`` also its anonymous volumes.

        Raises:
            ConflictError: it runs and not ``force``; its removal is already in progress.
            InvalidArgumentError: ``link`` (legacy links do not exist here).

        """
        raise NotImplementedError

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove every container that does not run; ``{ContainersDeleted, SpaceReclaimed}``.

        Filters: ``until``, ``label``, ``label!``.
        """
        raise NotImplementedError

    async def update(self, ref: str, body: UpdateBody) -> list[str]:
        """Change limits and restart policy, of a running container at once; return warnings.

        Raises:
            ConflictError: the kernel or the container's state refuses.

        """
        raise NotImplementedError
