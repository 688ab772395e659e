"""Removing containers: the row goes first, then, beside everything else, what it stood for.

Once the row is gone the container is gone for everybody; what a crash leaves after that point
(snapshot, directories, network) is an orphan that the next start of the daemon collects.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from typing import TYPE_CHECKING

from cais.engine.errors import RemovalInProgressError
from cais.engine.shared_memory import remove_bundle
from cais.errors import CaisError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from cais.engine.core import Core
    from cais.engine.execs import Execs
    from cais.engine.killing import Killer
    from cais.engine.launch import Launcher
    from cais.engine.table import Container

log = logging.getLogger(__name__)


class Remover:
    """Removes containers, on request and when an auto-remove container ends."""

    def __init__(self, core: Core, launcher: Launcher, killer: Killer, execs: Execs) -> None:
        self._core = core
        self._launcher = launcher
        self._killer = killer
        self._execs = execs

    async def remove(self, container: Container, *, force: bool, volumes: bool) -> None:
        """Decide under the lock, end the container if need be, then erase it.

        Raises:
            RemovalInProgressError: someone else is at it.
            ConflictError: it runs and not ``force``.

        """
        async with container.lock:
            self._claim(container, force=force)
        try:
            if container.record.state.running:
                ended = container.wait_ended()
                await self._killer.end(container, ended)
            async with container.lock:
                await self.erase(container, volumes=volumes)
        except BaseException as exc:
            container.record.state.removing = False
            container.tell_removed(str(exc) or "removal was interrupted")
            raise

    async def erase(self, container: Container, *, volumes: bool) -> None:
        """Delete the row of an ended container, tell everyone, clean up behind. Lock held."""
        await self._core.state.delete(container.id)
        self._core.table.discard(container)
        self._execs.forget_container(container.id)
        self._launcher.release(container)
        if volumes:
            await self._remove_anonymous_volumes(container)
        self._core.announce(container, "destroy")
        container.tell_ended()
        container.tell_removed()
        self._core.background.spawn_cleanup(
            self._clean_up(container), f"clean-up-{container.id[:12]}"
        )

    def _claim(self, container: Container, *, force: bool) -> None:
        state, name = container.record.state, container.record.name
        if self._core.table.find(container.id) is None:
            raise NotFoundError(f"No such container: {container.id}")
        if state.removing:
            raise RemovalInProgressError(name.removeprefix("/"))
        if state.running and not force:
            raise ConflictError(f'cannot remove container "{name}": {_why_not(container)}')
        state.removing = True

    async def _remove_anonymous_volumes(self, container: Container) -> None:
        for mount in container.record.mounts:
            if mount.type != "volume":
                continue
            try:
                if not (await self._core.threads.run(self._core.volumes.get, mount.name)).anonymous:
                    continue
                users = self._core.volume_users(mount.name)
                await self._core.threads.run(self._core.volumes.remove, mount.name, users=users)
            except NotFoundError:
                continue
            except ConflictError:
                continue  # another container uses it
            except CaisError as exc:
                log.warning("volume %s of container %s stays: %s", mount.name, container.id, exc)
            else:
                self._core.events.publish("volume", "destroy", mount.name, {"driver": "local"})

    async def _clean_up(self, container: Container) -> None:
        if container.cleanup is not None:
            await container.cleanup
        await self._core.threads.run(self.delete_files, container.id)

    def delete_files(self, container_id: str) -> None:
        """Delete everything but the row of a container that is no more. Blocks."""
        with contextlib.suppress(NotFoundError):
            self._core.snapshots.remove(container_id)
        remove_bundle(self._core.paths.bundle(container_id))
        shutil.rmtree(self._core.paths.container(container_id), ignore_errors=True)
        with contextlib.suppress(CaisError):  # the next start drops it
            self._core.copies.delete(container_id)


def _why_not(container: Container) -> str:
    state = container.record.state
    if state.paused:
        return "container is paused and must be unpaused first"
    word = "restarting" if state.restarting else "running"
    return f"container is {word}: stop the container before removing or force remove"
