"""Files in and out of containers: ``docker cp``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cais.engine.block_reader import read_in_pool
from cais.engine.block_writer import blocks_in_pool
from cais.engine.root_views import open_running_root, open_stopped_root
from cais.errors import ForbiddenError, InvalidArgumentError
from cais.images.container_paths import (
    ContainerPath,
    is_pseudo,
    look_up,
    parse_container_path,
    path_stat,
)
from cais.images.copying import CopyOptions, copy_into
from cais.images.layer_writer import pack_file, pack_tree
from cais.images.tar_writer import in_blocks
from cais.linux.paths import open_in_root
from cais.runtime import users
from cais.runtime.launch import LaunchError
from cais.snapshots.inodes import as_they_are
from cais.snapshots.merged import MergedTree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from cais.engine.block_reader import BlockReader
    from cais.engine.core import Core
    from cais.engine.records import ContainerRecord
    from cais.engine.table import Container
    from cais.images.container_paths import Found
    from cais.snapshots.inodes import OwnerOf
    from cais.snapshots.merged import Entry


class Archives:
    """``/containers/{id}/archive``. A container that does not run cannot be started meanwhile."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def stat(self, ref: str, path: str) -> dict[str, Any]:
        """Describe what is at a path of a container.

        Raises:
            ContainerNotFoundError, PathNotFoundError: no such container; no such file in it.
            InvalidArgumentError: an impossible path.

        """
        facts, chunks = await self._open(self._core.table.resolve(ref), ref, path)
        await chunks.aclose()
        return facts

    async def get(self, ref: str, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """Return what ``stat`` does, and the file or directory as an archive; raises likewise."""
        container = self._core.table.resolve(ref)
        facts, chunks = await self._open(container, ref, path)
        self._core.announce(container, "archive-path")
        return facts, chunks

    async def put(
        self,
        ref: str,
        path: str,
        source: AsyncIterator[bytes],
        *,
        keeps_kinds: bool = False,
        gives_to_user: bool = False,
    ) -> None:
        """Unpack an archive, plain or compressed, into a directory of a container.

        Args:
            ref: name or id.
            path: of the directory.
            source: the archive.
            keeps_kinds: refuse to put a directory where something else is, and the other way round.
            gives_to_user: everything becomes the container's user's.

        Raises:
            ContainerNotFoundError, PathNotFoundError: no such container; no such directory in it.
            ForbiddenError: its root, or the volume, is read-only.
            InvalidArgumentError: no directory; a malformed archive, or one that leads out of it.
            ExhaustedError: the disk is full.

        """
        container = self._core.table.resolve(ref)
        wanted = parse_container_path(path)
        async with self._steady(container) as is_running:
            work = partial(
                self._unpack,
                container.record,
                replace(wanted, directory=wanted.whole, name=""),
                ref,
                is_running=is_running,
                options=CopyOptions(
                    keeps_kinds=keeps_kinds, identities=container.record.identities
                ),
                gives_to_user=gives_to_user,
            )
            await read_in_pool(self._core.threads, source, work)
        self._core.announce(container, "extract-to-dir")

    async def _open(
        self, container: Container, ref: str, path: str
    ) -> tuple[dict[str, Any], AsyncGenerator[bytes, None]]:
        chunks = self._stream(container, ref, parse_container_path(path))
        return json.loads(await anext(chunks)), chunks

    async def _stream(
        self, container: Container, ref: str, path: ContainerPath
    ) -> AsyncGenerator[bytes, None]:
        """Yield the description as JSON, then the archive."""
        async with self._steady(container) as is_running:
            packing = self._pack(container.record, ref, path, is_running=is_running)
            async with contextlib.aclosing(blocks_in_pool(self._core.threads, packing)) as blocks:
                async for block in blocks:
                    yield block

    @contextlib.asynccontextmanager
    async def _steady(self, container: Container) -> AsyncIterator[bool]:
        """Say whether a container runs; if it does not, it stays so for the length of the block."""
        if not container.record.state.running:
            async with container.lock:
                if not container.record.state.running:
                    yield False
                    return
        yield True

    def _pack(
        self, record: ContainerRecord, ref: str, path: ContainerPath, *, is_running: bool
    ) -> Generator[bytes, None, None]:
        with (
            self._opened(record, is_running=is_running) as root_fd,
            look_up(root_fd, path, ref) as found,
        ):
            yield json.dumps(path_stat(root_fd, path, found)).encode()
            identities = record.identities
            owner_of = as_they_are if identities is None else identities.inside
            yield from in_blocks(_pack(path, found, owner_of))

    def _unpack(
        self,
        record: ContainerRecord,
        path: ContainerPath,
        ref: str,
        reader: BlockReader,
        *,
        is_running: bool,
        options: CopyOptions,
        gives_to_user: bool,
    ) -> None:
        with self._opened(record, is_running=is_running) as root_fd:
            _check_target(root_fd, path, ref)
            if gives_to_user and record.config.user:
                options = replace(options, owner=_owner(root_fd, record.config.user))
            copy_into(reader, root_fd, path.directory, options)

    @contextlib.contextmanager
    def _opened(self, record: ContainerRecord, *, is_running: bool) -> Iterator[int]:
        opening = open_running_root(record) if is_running else open_stopped_root(self._core, record)
        with opening as root_fd:
            yield root_fd


def _pack(path: ContainerPath, found: Found, owner_of: OwnerOf) -> Iterator[bytes]:
    device = found.status.st_dev

    def is_closed(entry: Entry) -> bool:
        """Leave out what the kernel makes up; only another mount can be that."""
        if entry.status.st_dev == device:
            return False
        try:
            fd = open_in_root(found.fd, entry.path)
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                return True
            raise
        try:
            return is_pseudo(fd)
        finally:
            os.close(fd)

    if found.is_directory:
        tree = MergedTree([found.fd])
        closed = (lambda _: True) if is_pseudo(found.fd) else is_closed
        return pack_tree(tree, path.shown, closed, owner_of=owner_of)
    return pack_file(MergedTree([found.parent_fd]), path.name, owner_of=owner_of)


def _owner(root_fd: int, user: str) -> tuple[int, int]:
    try:
        identity = users.resolve(root_fd, user, ())
    except LaunchError as exc:
        raise InvalidArgumentError(str(exc)) from exc
    return identity.uid, identity.gid


def _check_target(root_fd: int, path: ContainerPath, ref: str) -> None:
    """Refuse what is no directory, or cannot be written to, with Docker's texts."""
    with look_up(root_fd, path, ref) as found:
        if not found.is_directory:
            raise InvalidArgumentError("extraction point is not a directory")
        if os.fstatvfs(found.fd).f_flag & os.ST_RDONLY:
            is_root = found.status.st_dev == os.fstat(root_fd).st_dev
            what = "container rootfs" if is_root else "mounted volume"
            raise ForbiddenError(f"{what} is marked read-only")
