"""Images to and from registries: pull, push, log in, look.

A transfer blocks a thread of its own for as long as the registry takes; its client's going ends it.
Pulls of the same name wait for each other, so that the later ones find everything there.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cais.engine.messages import Messages
from cais.errors import InternalError, NotFoundError
from cais.registry.cancel import Cancel
from cais.spec.reference import Reference, parse_reference, parse_tag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from cais.engine.core import Core
    from cais.images.downloads import Downloads
    from cais.images.records import ImageRecord
    from cais.images.transfers import Report
    from cais.registry.access import Registries
    from cais.registry.credentials import Credentials
    from cais.registry.errors import RegistryError
    from cais.registry.repository import Repository
    from cais.spec.platform import Platform

    Work = Callable[[Report, Cancel], list[Reference]]
    """Returns the names to announce."""

_AT_ONCE = 128
_DENIED = frozenset({"DENIED", "UNAUTHORIZED"})


class Transfers:
    """``docker pull``, ``push``, ``login``, and what a registry says of an image."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images
        self._registries_: Registries | None = None
        self._downloads_: Downloads | None = None
        self._pool = ThreadPoolExecutor(_AT_ONCE, "transfer")
        self._pulls: dict[object, tuple[asyncio.Lock, int]] = {}

    def close(self) -> None:
        """Let go of the threads and connections. Blocks: until transfers under way have ended."""
        self._pool.shutdown(cancel_futures=True)
        if self._registries_ is not None:
            self._registries_.close()

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
            names = self._each_tag(wanted, credentials, cancel) if all_tags else [wanted]
            for one in names:
                self._pull_one(one, platform, credentials, report, cancel)
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
            self._push_all(images, credentials, report, cancel)
            return [reference for reference, _ in images]

        async for message in self._messages("push", work):
            yield message

    async def log_in(self, server: str, credentials: Credentials) -> dict[str, str]:
        """Check credentials; returns ``{"Status", "IdentityToken"}``. LoginNeededError."""
        cancel, registries = Cancel(), self._registries()
        with _cancelled_at_the_end(cancel):
            token = await self._run(registries.log_in, _domain_of(server), credentials, cancel)
        return {"Status": "Login Succeeded", "IdentityToken": token}

    async def describe(self, name: str, credentials: Credentials) -> dict[str, Any]:
        """Return ``{"Descriptor", "Platforms"}`` of an image in its registry."""
        cancel = Cancel()
        with _cancelled_at_the_end(cancel):
            reference = parse_reference(name)
            found: dict[str, Any] = await self._run(self._describe, reference, credentials, cancel)
        return found

    # In a thread

    def _pull_one(
        self,
        wanted: Reference,
        platform: Platform | None,
        credentials: Credentials,
        report: Report,
        cancel: Cancel,
    ) -> None:
        from cais.images.pulling import Pull
        from cais.registry.errors import RegistryError

        sources = self._registries().repositories(wanted, credentials, cancel)
        failure: Exception | None = None
        for source in sources:
            pull = Pull(
                self._store,
                self._downloads(),
                source,
                wanted,
                platform=platform,
                report=report,
                cancel=cancel,
            )
            try:
                pulled = pull.run()
            except RegistryError as error:  # a mirror may lack what the registry has
                failure = _refused(wanted, error)
                continue
            shown = wanted.familiar()
            outcome = "Downloaded newer image" if pulled.is_new else "Image is up to date"
            report({"status": f"Status: {outcome} for {shown}"})
            return
        raise failure or InternalError(f"no registry to pull {wanted.familiar()} from")

    def _each_tag(
        self, wanted: Reference, credentials: Credentials, cancel: Cancel
    ) -> list[Reference]:
        repository = self._first(wanted, credentials, cancel)
        return [Reference(wanted.domain, wanted.path, parse_tag(one)) for one in repository.tags()]

    def _push_all(
        self,
        images: Sequence[tuple[Reference, ImageRecord]],
        credentials: Credentials,
        report: Report,
        cancel: Cancel,
    ) -> None:
        from cais.images.pushing import push

        report({"status": f"The push refers to repository [{images[0][0].repository}]"})
        target = self._first(images[0][0], credentials, cancel, can_push=True)
        for reference, record in images:
            done = push(self._store, record, target, reference, report=report, cancel=cancel)
            report({"status": f"{done.tag}: digest: {done.digest} size: {done.size_bytes}"})
            aux = {"Tag": done.tag, "Digest": done.digest, "Size": done.size_bytes}
            report({"progressDetail": {}, "aux": aux})

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

    def _describe(
        self, reference: Reference, credentials: Credentials, cancel: Cancel
    ) -> dict[str, Any]:
        from cais.images.pulling import label_of, platforms_of
        from cais.registry.errors import RegistryError

        source = self._first(reference, credentials, cancel)
        try:
            found = source.get_manifest(label_of(reference.with_default_tag()))
            platforms = platforms_of(found, source)
        except RegistryError as error:
            raise _refused(reference, error) from error
        descriptor = {
            "mediaType": found.media_type,
            "digest": found.digest,
            "size": len(found.content),
        }
        return {"Descriptor": descriptor, "Platforms": platforms}

    def _first(
        self,
        reference: Reference,
        credentials: Credentials,
        cancel: Cancel,
        *,
        can_push: bool = False,
    ) -> Repository:
        return next(
            self._registries().repositories(reference, credentials, cancel, can_push=can_push)
        )

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

    async def _run(self, call: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - the call's own
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args))

    def _registries(self) -> Registries:
        if self._registries_ is None:
            from cais.registry.access import Registries
            from cais.registry.settings import load_settings

            config = self._core.config
            settings = load_settings(
                config.registries_file,
                mirrors=config.registry_mirrors,
                insecure=config.insecure_registries,
                certificates=config.certificate_directories,
            )
            self._registries_ = Registries(settings)
        return self._registries_

    def _downloads(self) -> Downloads:
        if self._downloads_ is None:
            from cais.images.downloads import Downloads

            self._downloads_ = Downloads(self._store.content)
        return self._downloads_


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


@contextlib.contextmanager
def _cancelled_at_the_end(cancel: Cancel) -> Iterator[None]:
    try:
        yield
    finally:
        cancel.set()


def _refused(wanted: Reference, error: RegistryError) -> Exception:
    """Return a refusal in the words of ``docker pull``."""
    repository = wanted.familiar_repository
    if error.status == 401 or _DENIED.intersection(error.codes):
        text = f"pull access denied for {repository}, repository does not exist or may require"
        return NotFoundError(f"{text} 'docker login': {error}")
    if "NAME_UNKNOWN" in error.codes:
        return NotFoundError(f"repository {repository} not found: {error}")
    if error.status == 404:
        return NotFoundError(f"manifest for {wanted.familiar()} not found: {error}")
    return error


def _domain_of(server: str) -> str:
    """Return the registry of a ``serveraddress``: a host, or the URL of Docker's old index."""
    from cais.registry.settings import HUB

    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    return HUB if host in ("", "index.docker.io", "registry-1.docker.io") else host
