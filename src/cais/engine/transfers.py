"""Images to and from registries: pull, push, log in, search, look.

A transfer blocks a thread of its own for as long as the registry takes; its client's going ends it.
Pulls of the same name wait for each other, so that the later ones find everything there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from cais.engine.messages import Messages
from cais.errors import NotFoundError
from cais.registry.cancel import Cancel
from cais.spec.reference import Reference, parse_reference, parse_tag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from cais.engine.core import Core
    from cais.images.records import ImageRecord
    from cais.images.remote import RemoteImages
    from cais.images.transfers import Report
    from cais.registry.credentials import Credentials
    from cais.spec.platform import Platform

    Work = Callable[[Report, Cancel], list[Reference]]
    """Returns the names to announce."""

_AT_ONCE = 128
T = TypeVar("T")


class Transfers:
    """``docker pull``, ``push``, ``login``, ``search``, and what a registry says of an image."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images
        self._lock = threading.Lock()
        self._remote_: RemoteImages | None = None
        self._pool = ThreadPoolExecutor(_AT_ONCE, "transfer")
        self._pulls: dict[object, tuple[asyncio.Lock, int]] = {}

    def close(self) -> None:
        """Let go of the threads and connections. Blocks: until transfers under way have ended."""
        self._pool.shutdown(cancel_futures=True)
        if self._remote_ is not None:
            self._remote_.close()

    async def pull(
        self,
        name: str,
        tag: str = "",
        *,
        platform: Platform | None = None,
        credentials: Credentials,
        all_tags: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """Bring an image in; yields Docker's progress messages.

        Args:
            name: of the image, perhaps with tag or digest.
            tag: a tag or digest in place of the one in ``name``.
            platform: the one to choose of several; None: this machine's.
            credentials: of the user at the registry.
            all_tags: every tag of the repository.

        Raises:
            NotFoundError: no such image, or nobody may see it: Docker's texts.
            CaisError: whatever else prevents it.

        """
        wanted = wanted_reference(name, tag)

        def work(report: Report, cancel: Cancel) -> list[Reference]:
            remote = self._remote()
            names = remote.each_tag(wanted, credentials, cancel) if all_tags else [wanted]
            for one in names:
                remote.pull(one, platform, credentials, report, cancel)
            return names

        async with _alone(self._pulls, (wanted, platform)):
            async for message in self._messages("pull", work):
                yield message

    async def push(
        self, name: str, tag: str = "", *, credentials: Credentials
    ) -> AsyncIterator[dict[str, Any]]:
        """Send an image; without a tag every tag of the repository. Yields Docker's messages.

        Raises:
            NotFoundError: "An image does not exist locally with the tag: ...".

        """
        reference = parse_reference(name)
        if reference.digest is not None:
            raise NotFoundError("cannot push a digest reference")
        if tag:
            reference = Reference(reference.domain, reference.path, parse_tag(tag))
        images = await self._core.threads.run(self._to_push, reference)

        def work(report: Report, cancel: Cancel) -> list[Reference]:
            self._remote().push(images, credentials, report, cancel)
            return [reference for reference, _ in images]

        async for message in self._messages("push", work):
            yield message

    async def log_in(self, server: str, credentials: Credentials) -> dict[str, str]:
        """Check credentials; returns ``{"Status", "IdentityToken"}``. LoginNeededError."""
        token = await self._ask(lambda cancel: self._remote().log_in(server, credentials, cancel))
        return {"Status": "Login Succeeded", "IdentityToken": token}

    async def describe(self, name: str, credentials: Credentials) -> dict[str, Any]:
        """Return ``{"Descriptor", "Platforms"}`` of an image in its registry."""
        reference = parse_reference(name)
        return await self._ask(
            lambda cancel: self._remote().describe(reference, credentials, cancel)
        )

    async def search(
        self, term: str, limit: int, filters: Mapping[str, Sequence[str]], credentials: Credentials
    ) -> list[dict[str, Any]]:
        """Return the repositories that a registry finds; the contract is ``RemoteImages``'s."""
        return await self._ask(
            lambda cancel: self._remote().search(term, limit, filters, credentials, cancel)
        )

    def _to_push(self, reference: Reference) -> list[tuple[Reference, ImageRecord]]:
        tags = [reference.tag] if reference.tag else self._tags_of(reference)
        found = []
        for tag in tags:
            named = Reference(reference.domain, reference.path, tag)
            image_id = self._store.catalog.find_name(named)
            if image_id is not None:
                found.append((named, self._store.get(image_id)))
        if not found:
            shown = reference.familiar_repository
            raise NotFoundError(f"An image does not exist locally with the tag: {shown}")
        return found

    def _tags_of(self, reference: Reference) -> list[str]:
        return [tag for tag, _ in self._store.catalog.tags(reference.repository)]

    # Between the loop and threads

    async def _messages(self, action: str, work: Work) -> AsyncIterator[dict[str, Any]]:
        messages, cancel = Messages(), Cancel()

        def run() -> list[Reference]:
            with messages:
                return work(messages.report, cancel)

        working = asyncio.ensure_future(self._run(run))
        try:
            async for message in messages:
                yield message
            for name in await working:
                attributes = {"name": name.familiar_repository}
                self._core.events.publish("image", action, name.familiar(), attributes)
        finally:
            cancel.set()
            await asyncio.gather(working, return_exceptions=True)

    async def _ask(self, call: Callable[[Cancel], T]) -> T:
        """Run what needs no messages; whoever stops waiting for it ends it."""
        cancel = Cancel()
        try:
            return await self._run(lambda: call(cancel))
        finally:
            cancel.set()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _remote(self) -> RemoteImages:
        """Return what knows HTTP; imported with the first transfer. Blocks."""
        with self._lock:
            if self._remote_ is None:
                from cais.images.remote import RemoteImages

                self._remote_ = RemoteImages(self._store, self._core.config.registries)
            return self._remote_


def wanted_reference(name: str, tag: str) -> Reference:
    """Return what ``POST /images/create`` asks for: a name, and a tag or digest beside it."""
    if tag:
        name += f"@{tag}" if ":" in tag else f":{tag}"
    return parse_reference(name).with_default_tag()


@contextlib.asynccontextmanager
async def _alone(locks: dict[object, tuple[asyncio.Lock, int]], key: object) -> AsyncIterator[None]:
    lock, users = locks.get(key, (asyncio.Lock(), 0))
    locks[key] = (lock, users + 1)
    try:
        async with lock:
            yield
    finally:
        lock, users = locks[key]
        if users == 1:
            del locks[key]
        else:
            locks[key] = (lock, users - 1)
