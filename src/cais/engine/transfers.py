"""Images to and from registries: pull, push, log in, search, look.

A transfer blocks a thread of its own for as long as the registry takes; its client's going ends it.
Who asks for the same pull with the same credentials follows the one under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from cais.engine.shared_work import SharedWork
from cais.errors import NotFoundError
from cais.registry.cancel import Cancel
from cais.spec.reference import Reference, parse_reference, parse_tag

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from cais.engine.core import Core
    from cais.images.records import ImageRecord
    from cais.images.remote import RemoteImages
    from cais.images.transfers import Report
    from cais.registry.credentials import Credentials
    from cais.spec.platform import Platform

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
        self._pulls: dict[object, SharedWork[list[Reference]]] = {}

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
            news = [remote.pull(one, platform, credentials, report, cancel) for one in names]
            outcome = "Downloaded newer image" if any(news) else "Image is up to date"
            shown = wanted.familiar_repository if all_tags else wanted.familiar()
            report({"status": f"Status: {outcome} for {shown}"})
            return names

        key = (wanted, platform, credentials, all_tags)
        pull = self._pulls.get(key)
        if pull is None or not pull.is_open:
            pull = self._pulls[key] = SharedWork(work, self._run)
        try:
            async with contextlib.aclosing(self._follow("pull", pull)) as messages:
                async for message in messages:
                    yield message
        finally:
            if self._pulls.get(key) is pull and not pull.is_open:
                del self._pulls[key]

    async def push(
        self, name: str, tag: str = "", *, credentials: Credentials
    ) -> AsyncIterator[dict[str, Any]]:
        """Send an image; without a tag every tag of the repository. Yields Docker's messages.

        Raises:
            NotFoundError: a digest; after the first message, as with Docker: "An image does not
                exist locally with the tag: ...".

        """
        reference = parse_reference(name)
        if reference.digest is not None:
            raise NotFoundError("cannot push a digest reference")
        if tag:
            reference = Reference(reference.domain, reference.path, parse_tag(tag))

        def work(report: Report, cancel: Cancel) -> list[Reference]:
            report({"status": f"The push refers to repository [{reference.repository}]"})
            images = self._to_push(reference)
            self._remote().push(images, credentials, report, cancel)
            return [reference for reference, _ in images]

        push = SharedWork(work, self._run)
        async with contextlib.aclosing(self._follow("push", push)) as messages:
            async for message in messages:
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

    async def _follow(
        self, action: str, work: SharedWork[list[Reference]]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the messages of a transfer, and announce what it brought or sent."""
        async with contextlib.aclosing(work.follow()) as messages:
            async for message in messages:
                yield message
        for name in await work.result():
            attributes = {"name": name.familiar_repository}
            self._core.events.publish("image", action, name.familiar(), attributes)

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
