"""Checkpoints: a container's processes written to files, to be started from later.

<data-root>/containers/<id>/checkpoints/<name>/   what the runtime and criu wrote
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cais.engine.errors import NotRunningError
from cais.errors import (
    CaisError,
    ConflictError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from cais.engine.core import Core
    from cais.engine.table import Container

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Checkpoints:
    """``/containers/{id}/checkpoints``, and where ``start`` finds one."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(
        self, ref: str, name: str, *, directory: str = "", leave_running: bool = False
    ) -> None:
        """Write a checkpoint; the container ends with it unless ``leave_running``.

        Args:
            ref: name or id.
            name: of the checkpoint.
            directory: where instead of the container's own place.
            leave_running: let it go on.

        Raises:
            NotRunningError: the container does not run.
            InvalidArgumentError: not a name, or not a directory.
            ConflictError: there is one of this name.
            UnsupportedError: it has a user namespace.
            InternalError: what the runtime or criu says.

        """
        container = self._core.table.resolve(ref)
        if not container.record.state.running:
            raise NotRunningError(container.id)
        if container.record.identities is not None:
            raise UnsupportedError(
                f"cannot checkpoint container {ref}: not supported with a user namespace"
            )
        path = self._path(container, name, directory)
        async with container.lock:
            try:
                await self._core.threads.run(_make, path)
            except FileExistsError as exc:
                raise ConflictError(
                    f"cannot checkpoint container {ref}: checkpoint with name {name} already"
                    f" exists for container {ref}"
                ) from exc
            try:
                await self._core.shim.client.checkpoint(
                    container.id, directory=path, leave_running=leave_running
                )
            except BaseException as exc:
                await self._core.threads.run(_delete, path)
                if isinstance(exc, CaisError):
                    raise InternalError(f"cannot checkpoint container {ref}: {exc}") from exc
                raise
        self._core.announce(container, "checkpoint")

    async def list(self, ref: str, directory: str = "") -> list[dict[str, Any]]:
        """Return a document for each checkpoint."""
        container = self._core.table.resolve(ref)
        place = self._place(container, directory)
        return [{"Name": name} for name in await self._core.threads.run(_names, place)]

    async def remove(self, ref: str, name: str, directory: str = "") -> None:
        """Delete a checkpoint. NotFoundError: there is none of this name."""
        container = self._core.table.resolve(ref)
        path = self._path(container, name, directory)
        if not await self._core.threads.run(path.is_dir):
            raise NotFoundError(f"checkpoint {name} does not exist for container {ref}")
        await self._core.threads.run(_delete, path)

    def find(self, container: Container, name: str) -> Path:
        """Return where a checkpoint to start from lies. NotFoundError: nowhere. Blocks."""
        path = self._path(container, name, "")
        if not path.is_dir():
            shown = container.record.name.removeprefix("/")
            raise NotFoundError(f"checkpoint {name} does not exist for container {shown}")
        return path

    def _path(self, container: Container, name: str, directory: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidArgumentError(
                f"invalid checkpoint ID ({name[:64]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        return self._place(container, directory) / name

    def _place(self, container: Container, directory: str) -> Path:
        if not directory:
            return Path(self._core.paths.container(container.id)) / "checkpoints"
        if not directory.startswith("/") or "\0" in directory:
            raise InvalidArgumentError(f"checkpoint directory {directory[:256]}: not a full path")
        return Path(directory)


def _make(path: Path) -> None:
    path.parent.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700)


def _delete(path: Path) -> None:
    """Delete a checkpoint, and the place of a container's checkpoints with the last one."""
    shutil.rmtree(path, ignore_errors=True)
    if path.parent.name == "checkpoints":
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _names(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    return sorted(path.name for path in place.iterdir() if path.is_dir())
