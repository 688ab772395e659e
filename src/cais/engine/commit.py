"""Containers into images: ``docker commit``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from cais.engine.errors import NotRunningError
from cais.engine.merge import fill_config
from cais.errors import ConflictError
from cais.images.changes import apply_changes
from cais.images.committing import Commit, commit_snapshot
from cais.images.store import name_to_give
from cais.spec import image
from cais.spec.container import ContainerConfig
from cais.spec.conversion import convert
from cais.spec.digest import Digest, ImageId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cais.engine.core import Core
    from cais.engine.lifecycle import Lifecycle
    from cais.engine.table import Container

_MAPS = ("exposed_ports", "volumes", "labels")


class Commits:
    """``POST /commit``."""

    def __init__(self, core: Core, lifecycle: Lifecycle) -> None:
        self._core = core
        self._lifecycle = lifecycle

    async def commit(
        self,
        ref: str,
        *,
        repository: str = "",
        tag: str = "",
        author: str = "",
        comment: str = "",
        pause: bool = True,
        changes: Sequence[str] = (),
        config: ContainerConfig | None = None,
    ) -> str:
        """Make an image of what a container has changed; return its id.

        Args:
            ref: name or id, running or not.
            repository: may be empty: the image gets no name then.
            tag: ``latest`` when empty.
            author: as the image shows it.
            comment: of the image and of its history.
            pause: freeze a running container meanwhile.
            changes: Dockerfile instructions that change the configuration.
            config: what the image's containers start with, where not as this one did.

        Raises:
            ContainerNotFoundError, ImageNotFoundError: no such container; its image is gone.
            ConflictError: it is being removed.
            InvalidArgumentError: malformed change or name.
            ExhaustedError: too many layers, or the disk is full.

        """
        container = self._core.table.resolve(ref)
        _check_state(container)
        wanted = _image_config(container, config, changes)
        names = [name_to_give(repository, tag or None)] if repository else []
        commit = Commit(
            wanted,
            author=author,
            comment=comment,
            created_by=" ".join(container.record.config.cmd or ()),
            created_ns=self._core.clock.wall_ns(),
        )
        base = ImageId(Digest(container.record.image_id))
        async with self._frozen(container, pause=pause):
            image_id = await self._core.threads.run(
                commit_snapshot, self._core.images, container.id, base, commit, names
            )
        shown = names[0].familiar() if names else ""
        if shown:
            self._core.events.publish("image", "tag", image_id, {"name": shown})
        told = {"comment": comment, "imageID": image_id, "imageRef": shown}
        self._core.announce(container, "commit", told)
        return image_id

    @contextlib.asynccontextmanager
    async def _frozen(self, container: Container, *, pause: bool) -> AsyncIterator[None]:
        """Hold a container still: a running one is paused, any other one cannot be started."""
        state = container.record.state
        if not state.running:
            async with container.lock:
                yield
            return
        if not pause or state.paused:
            yield
            return
        try:
            await self._lifecycle.pause(container.id, for_commit=True)
        except NotRunningError:  # it has just ended by itself
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(ConflictError):  # killed, or unpaused by somebody else
                await self._lifecycle.unpause(container.id)


def _check_state(container: Container) -> None:
    for condition, text in (
        (container.record.state.dead, "Dead"),
        (container.record.state.removing, "being removed"),
    ):
        if condition:
            raise ConflictError(f"You cannot commit container {container.id} which is {text}")


def _image_config(
    container: Container, given: ContainerConfig | None, changes: Sequence[str]
) -> image.ContainerConfig:
    """Return what the image's containers start with.

    As Docker does it: what was given, or the container's own, is changed; then the container's own
    fills what is open, also where a change has cleared it.
    """
    own = _for_image(container.record.config)
    changed = apply_changes(own if given is None else _for_image(given), changes)
    return _for_image(fill_config(_for_container(changed), own))


def _for_image(config: ContainerConfig) -> image.ContainerConfig:
    """Leave out what belongs to one container, and maps with nothing in them."""
    kept = convert(config, image.ContainerConfig, from_attributes=True)
    empty = {name: None for name in _MAPS if not getattr(kept, name)}
    return msgspec.structs.replace(kept, **empty)


def _for_container(config: image.ContainerConfig) -> ContainerConfig:
    return convert(config, ContainerConfig, from_attributes=True)
