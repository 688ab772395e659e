"""A registry's life: open its root, listen, serve, tidy up, end; also in a thread, as a library.

::

    with RunningRegistry(RegistryOptions(root)) as registry:
        ...  # registry.address is "127.0.0.1:<port>"

On disk::

    <root>/lock                  held by the one server of this root
    <root>/registry.db           see ``catalog``
    <root>/content/              blobs; with an engine's beside them, two names of the same bytes
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cais.content.linked import LinkedStore
from cais.content.store import ContentStore
from cais.database import has_database
from cais.errors import ConflictError, DataLossError, InternalError
from cais.http.connection import Patience
from cais.http.server import Server
from cais.registry.origin import Origin
from cais.registry.server.application import HEADERS, Application
from cais.registry.server.blobs import BlobRoutes
from cais.registry.server.catalog import Catalog
from cais.registry.server.listings import ListingRoutes
from cais.registry.server.manifests import ManifestRoutes
from cais.registry.server.mirror import MirrorShelf
from cais.registry.server.passwords import Passwords
from cais.registry.server.pool import Pool
from cais.registry.server.routes import Deed
from cais.registry.server.shelf import LendingShelf, OwnShelf
from cais.registry.server.storage import GRACE_S, Storage
from cais.registry.server.uploading import UploadRoutes
from cais.registry.server.uploads import MAX_UPLOADS, Uploads

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from pathlib import Path

    from cais.registry.server.routes import Route
    from cais.registry.server.shelf import Lender, Shelf
    from cais.registry.server.upstream import Upstream

log = logging.getLogger(__name__)

PATIENCE = Patience(idle_s=300.0, stall_s=60.0, crawl_s=120.0)
_BACKLOG = 1024
_PASSWORD_THREADS = 2
_UPSTREAM_THREADS = 24
_TIDY_S = 60.0
_COLLECT_EVERY = 60
"""Times ``_TIDY_S``."""


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How a registry is served."""

    root: Path
    """Its own directory."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any that is free."""

    may_write: bool = True
    may_delete: bool = True
    htpasswd: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    neighbour: Path | None = None
    """An engine's content store on the same filesystem: its bytes are never stored again."""

    lender: Lender | None = None
    """What can be pulled although it was never pushed."""

    upstream: Upstream | None = None
    """The registry this one is a pull-through cache of; nothing can be pushed then."""

    grace_s: float = GRACE_S
    """How long a blob stays that no manifest needs."""

    max_uploads: int = MAX_UPLOADS
    max_connections: int = 256
    patience: Patience = PATIENCE


class RegistryServer:
    """One registry; an asynchronous context manager.

    Raises, when it is entered:
        ConflictError: another server has this root.
        DataLossError: its database is lost and cannot be rebuilt; nothing was deleted.
        InvalidArgumentError: a password or TLS file cannot be used.
        OSError: the address or the root cannot be used.

    """

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options
        self._stack = contextlib.AsyncExitStack()
        self.origin = Origin("http", options.host, options.port)
        """Where it listens, once entered."""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        options = self._options
        if options.lender is not None:
            self._stack.callback(options.lender.close)
        self._stack.callback(os.close, _lock(options.root))
        passwords = Passwords(options.htpasswd) if options.htpasswd else None
        context = _context(options)
        storage = _open_storage(options)
        self._stack.callback(storage.close)
        pool, checking = Pool(), Pool(_PASSWORD_THREADS)
        self._stack.callback(pool.close)
        self._stack.callback(checking.close)
        uploads = Uploads(storage.content, pool, maximum=options.max_uploads)
        self._stack.callback(uploads.close)
        shelf = self._shelf(storage, pool)
        application = Application(
            _routes(shelf, storage, uploads, pool), passwords, checking, _deeds(options)
        )
        server = Server(application, HEADERS, options.max_connections, options.patience)
        self._stack.push_async_callback(server.close)
        self._listen(server, context)
        tidying = asyncio.create_task(_tidy(storage, uploads, pool))
        self._stack.push_async_callback(_cancel, tidying)

    def _shelf(self, storage: Storage, pool: Pool) -> Shelf:
        options = self._options
        if options.upstream is not None:
            asking = Pool(_UPSTREAM_THREADS)
            self._stack.callback(asking.close)
            mirror = MirrorShelf(storage, options.upstream, pool, asking)
            self._stack.push_async_callback(mirror.close)
            return mirror
        if options.lender is not None:
            return LendingShelf(storage, options.lender, pool)
        return OwnShelf(storage, pool)

    def _listen(self, server: Server, context: ssl.SSLContext | None) -> None:
        options = self._options
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        address = (options.host, options.port)
        sock = socket.create_server(address, family=family, backlog=_BACKLOG)
        server.listen(sock, context)
        scheme = "http" if context is None else "https"
        self.origin = Origin(scheme, options.host, sock.getsockname()[1])
        log.info("registry listens on %s", self.origin)


class RunningRegistry:
    """A registry in a thread of its own; a context manager. Raises as ``RegistryServer``."""

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options
        self._thread = threading.Thread(target=self._run, name="registry-server", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._origin: Origin | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; idempotent."""
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def origin(self) -> Origin:
        """Where it listens."""
        if self._origin is None:
            raise InternalError("the registry has not been started")
        return self._origin

    @property
    def address(self) -> str:
        """``host:port``, the first part of an image's name."""
        return self.origin.netloc

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - whoever enters gets it
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with RegistryServer(self._options) as server:
            self._origin = server.origin
            self._ready.set()
            await self._stop.wait()


def _routes(shelf: Shelf, storage: Storage, uploads: Uploads, pool: Pool) -> Iterable[Route]:
    modules = (
        UploadRoutes(uploads, storage, pool),
        BlobRoutes(shelf, storage, pool),
        ManifestRoutes(shelf, storage, pool),
        ListingRoutes(shelf),
    )
    return [route for module in modules for route in module.routes()]


def _deeds(options: RegistryOptions) -> frozenset[Deed]:
    deeds = {Deed.READ}
    if options.may_write and options.upstream is None:
        deeds.add(Deed.WRITE)
    if options.may_write and options.may_delete:
        deeds.add(Deed.DELETE)
    return frozenset(deeds)


def _open_storage(options: RegistryOptions) -> Storage:
    place = options.root / "content"
    neighbour = options.neighbour
    content = LinkedStore(place, neighbour) if neighbour else ContentStore(place)
    path = options.root / "registry.db"
    if not has_database(path) and any(content.walk()):
        raise DataLossError(
            f"{path} is gone, and its copy, but not the blobs: nothing was deleted; see "
            "'cais system check'"
        )
    catalog = Catalog.open(path)
    storage = Storage(content, catalog, grace_s=options.grace_s, lender=options.lender)
    storage.collect()  # what a crash left between a blob and its row
    return storage


def _lock(root: Path) -> int:
    """Return a descriptor that holds the root's lock. ConflictError: another server has it."""
    root.mkdir(0o700, parents=True, exist_ok=True)
    lock_fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(lock_fd)
        raise ConflictError(f"another registry server uses {root}") from exc
    return lock_fd


def _context(options: RegistryOptions) -> ssl.SSLContext | None:
    if options.certificate is None or options.key is None:
        return None
    from cais.http.tls import make_context

    return make_context(options.certificate, options.key, None)


async def _tidy(storage: Storage, uploads: Uploads, pool: Pool) -> None:
    """End idle uploads every minute, and collect what nothing refers to every hour."""
    for turn in range(1, 1 << 62):
        await asyncio.sleep(_TIDY_S)
        uploads.expire()
        if turn % _COLLECT_EVERY == 0:
            try:
                await pool(storage.collect)
            except Exception:
                log.exception("collecting unused blobs")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
