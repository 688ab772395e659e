"""Containers as things: create, find, describe, rename, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cais.engine.filters import matches_labels, matches_no_label, parse_filters
from cais.engine.footprint import container_disk_use
from cais.engine.inspection import inspect_document
from cais.engine.listing import summary
from cais.engine.moments import parse_until
from cais.engine.names import parse_name
from cais.engine.oci import adapt_update, resources_document
from cais.engine.selection import select
from cais.engine.updating import merge_update
from cais.errors import CaisError, ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cais.engine.core import Core
    from cais.engine.creation import Creator
    from cais.engine.execs import Execs
    from cais.engine.oci import Host
    from cais.engine.removal import Remover
    from cais.engine.table import Container
    from cais.snapshots.snapshotter import Mount
    from cais.spec.container import CreateBody, UpdateBody

_PRUNE_FILTERS = frozenset(("until", "label", "label!"))


class Containers:
    """``/containers`` but for what moves a container between states (``lifecycle``)."""

    def __init__(
        self, core: Core, creator: Creator, remover: Remover, execs: Execs, host: Host
    ) -> None:
        self._core = core
        self._creator = creator
        self._remover = remover
        self._execs = execs
        self._host = host

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
        return await self._core.background.complete(
            self._creator.create(name, body, platform), "create"
        )

    def resolve(self, ref: str) -> Container:
        """Find a container: full id, then name, then unambiguous id prefix. Not a coroutine.

        Raises:
            ContainerNotFoundError: ``No such container: <ref>``.
            InvalidArgumentError: the prefix fits several ids.

        """
        return self._core.table.resolve(ref)

    async def inspect(self, ref: str, *, size: bool = False) -> dict[str, Any]:
        """Return the document of ``GET /containers/{id}/json`` in its v1.51 shape."""
        container = self._core.table.resolve(ref)
        record = container.record
        document = inspect_document(
            record,
            host=self._host,
            paths=self._core.paths,
            storage_driver=self._core.snapshots.driver,
            snapshot_mounts=await self._core.threads.run(self._mounts, record.id),
            exec_ids=self._execs.running_in(record.id),
        )
        if size:
            document |= await self._core.threads.run(self._sizes, container)
        return document

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name.

        Raises:
            InvalidArgumentError: empty or malformed name, or the one it already has.
            NameConflictError: the name is taken.

        """
        container = self._core.table.resolve(ref)
        record, old_name = container.record, container.record.name
        if not name:
            raise InvalidArgumentError("Neither old nor new names may be empty")
        new_name = parse_name(name)
        if new_name == old_name:
            raise InvalidArgumentError(
                "Renaming a container with the same name as its current name"
            )
        async with container.lock:
            self._refuse_removed(container, "renamed")
            self._core.table.reserve_name(new_name, record.id)
            record.name = new_name
            try:
                await self._core.state.put(record)
            except CaisError:
                record.name = old_name
                self._core.table.release_name(new_name)
                raise
            self._core.table.release_name(old_name)
        await self._core.threads.run(self._core.copies.put, record)
        self._core.announce(container, "rename", {"oldName": old_name})

    async def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container, with ``volumes`` also its anonymous volumes.

        Raises:
            ConflictError: it runs and not ``force``; its removal is already in progress.
            InvalidArgumentError: ``link`` (legacy links do not exist here).

        """
        if link:
            raise InvalidArgumentError("legacy links are not supported: there is none to remove")
        container = self._core.table.resolve(ref)
        await self._core.background.complete(
            self._remover.remove(container, force=force, volumes=volumes), "remove"
        )

    async def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Remove every container that does not run; ``{ContainersDeleted, SpaceReclaimed}``.

        What is reclaimed is counted as ``system df`` does.

        Filters: ``until``, ``label``, ``label!``. PruneRunningError: another one is under way.
        """
        with self._core.pruning:
            return await self._prune(parse_filters(filters, _PRUNE_FILTERS))

    async def _prune(self, checked: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        before_ns = parse_until(checked, self._core.clock.wall_ns())
        deleted, reclaimed = [], 0
        for container in self._core.table:
            record = container.record
            if record.state.running or record.state.removing:
                continue
            if before_ns is not None and record.created_at_ns > before_ns:
                continue
            if not matches_labels(record.labels, checked.get("label", ())):
                continue
            if not matches_no_label(record.labels, checked.get("label!", ())):
                continue
            size_bytes = await self._core.threads.run(container_disk_use, self._core, record.id)
            try:
                await self._remover.remove(container, force=False, volumes=False)
            except (ConflictError, NotFoundError):
                continue  # started or removed meanwhile
            deleted.append(record.id)
            reclaimed += size_bytes
        self._core.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed}

    async def update(self, ref: str, body: UpdateBody) -> list[str]:
        """Change limits and restart policy, of a running container at once; return warnings.

        Raises:
            ConflictError: the kernel or the container's state refuses.

        """
        container = self._core.table.resolve(ref)
        async with container.lock:
            self._refuse_removed(container, "updated")
            return await self._update(container, body)

    async def _update(self, container: Container, body: UpdateBody) -> list[str]:
        """Lock held."""
        record = container.record
        limits, warnings = adapt_update(body, self._host)
        try:
            changed = merge_update(record.host_config, limits)
        except ConflictError as exc:
            raise ConflictError(f"Cannot update container {record.id}: {exc}") from exc
        policy = body.restart_policy
        if policy is not None and policy.name not in ("", "no") and record.auto_remove:
            raise ConflictError(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        if record.state.running and not record.state.restarting:
            try:
                await self._core.shim.client.update(record.id, resources_document(changed))
            except CaisError as exc:
                raise type(exc)(f"Cannot update container {record.id}: {exc}") from exc
        record.host_config = changed
        await self._core.state.put(record)
        await self._core.threads.run(self._core.copies.put, record)
        self._core.announce(container, "update")
        return warnings

    def _refuse_removed(self, container: Container, verb: str) -> None:
        state = container.record.state
        if state.removing or state.dead or self._core.table.find(container.id) is None:
            raise ConflictError(f"container is marked for removal and cannot be {verb}")

    def _mounts(self, container_id: str) -> Sequence[Mount]:
        try:
            return self._core.snapshots.planned_mounts(container_id)
        except NotFoundError:
            return ()

    def _sizes(self, container: Container) -> dict[str, int]:
        """Return SizeRw and SizeRootFs. Blocks: walks the container's own files."""
        try:
            own_bytes = self._core.snapshots.usage(container.id).size_bytes
        except NotFoundError:
            own_bytes = 0
        try:
            image_bytes = self._core.images.resolve(container.record.image_id).size_bytes
        except NotFoundError:
            image_bytes = 0
        return {"SizeRw": own_bytes, "SizeRootFs": image_bytes + own_bytes}

    def _show_lost_images(self, documents: Sequence[dict[str, Any]]) -> None:
        """Show the id where the name given at creation does not lead to the image any more."""
        named: dict[str, str] = {}
        for document in documents:
            name = document["Image"]
            if name not in named:
                try:
                    named[name] = self._core.images.find_id(name)
                except (NotFoundError, InvalidArgumentError):
                    named[name] = ""
            if named[name] != document["ImageID"]:
                document["Image"] = document["ImageID"]

    def _image_ids_of(self, ref: str) -> Collection[str]:
        """Return an image's id and those of all that were built on it; nothing if unknown."""
        try:
            pending = [self._core.images.resolve(ref).id]
        except (NotFoundError, InvalidArgumentError):
            return ()
        found = []
        while pending:
            found.append(pending.pop())
            pending += self._core.images.children(found[-1])
        return found

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
        found = select(
            self._core.table,
            show_all=all,
            limit=limit,
            filters=filters,
            image_ids_of=self._image_ids_of,
        )
        now_ns = self._core.clock.wall_ns()
        documents = [summary(container.record, now_ns) for container in found]
        await self._core.threads.run(self._show_lost_images, documents)
        if size:
            for container, document in zip(found, documents, strict=True):
                document.update(await self._core.threads.run(self._sizes, container))
        return documents
