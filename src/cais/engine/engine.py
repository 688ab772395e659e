"""The facade: one object per daemon, its attributes are the use cases by resource.

Everything the API, the library and the tests do goes through here. Methods are coroutines unless
their docstring says otherwise; references are names, full ids or unambiguous id prefixes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cais.content.store import ContentStore
from cais.engine import reserve
from cais.engine.archives import Archives
from cais.engine.bundle import BundleWriter
from cais.engine.changes import Changes
from cais.engine.checkpoints import Checkpoints
from cais.engine.clock import Clock
from cais.engine.commit import Commits
from cais.engine.containers import Containers
from cais.engine.copies import Copies
from cais.engine.core import Core
from cais.engine.creation import Creator
from cais.engine.disk_use import DiskUse
from cais.engine.execs import Execs
from cais.engine.exits import Exits
from cais.engine.guard import guard_packet_filter
from cais.engine.images import Images
from cais.engine.killing import Killer
from cais.engine.launch import Launcher
from cais.engine.lifecycle import Lifecycle
from cais.engine.namespaces import NamespaceStock
from cais.engine.networks import Networks
from cais.engine.oci import detect_host
from cais.engine.paths import Paths
from cais.engine.reconcile import Reconciler
from cais.engine.removal import Remover
from cais.engine.shims import ShimLink
from cais.engine.state import REBUILT, State
from cais.engine.streams import Streams
from cais.engine.system import System
from cais.engine.tasks import Background, Threads
from cais.engine.transfers import Transfers
from cais.engine.volumes import Volumes
from cais.errors import ConflictError, UnsupportedError
from cais.images.store import ImageStore
from cais.network.bridge import NetworkOptions
from cais.network.manager import NetworkManager
from cais.shim.values import OomEvent
from cais.snapshots.drivers import open_snapshotter
from cais.volumes.store import VolumeStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cais.engine.config import EngineConfig
    from cais.engine.oci import Host
    from cais.engine.state import Loaded
    from cais.shim.values import ShimEvent

log = logging.getLogger(__name__)

_CLOSE_GRACE_S = 5.0


class Engine:
    """Owns the state of one data root. ``open`` it once, ``close`` it when the daemon ends."""

    def __init__(self, core: Core, host: Host, daemon_id: str) -> None:
        """Put the services together; ``open`` makes the core."""
        self._core = core
        self._stack = AsyncExitStack()
        bundles = BundleWriter(core, host)
        stock = NamespaceStock(core)
        killer = Killer(core)
        self.execs = Execs(core, bundles)
        launcher = Launcher(core, bundles, stock, self.execs)
        remover = Remover(core, launcher, killer, self.execs)
        self._exits = Exits(core, launcher, remover)
        self._reconciler = Reconciler(core, self._exits, self.execs, launcher, remover)
        self._stock = stock
        self._bundles = bundles
        self.containers = Containers(core, Creator(core, host), remover, self.execs, host)
        self.checkpoints = Checkpoints(core)
        self.lifecycle = Lifecycle(core, launcher, killer, remover, self.checkpoints)
        self.commits = Commits(core, self.lifecycle)
        self.changes = Changes(core)
        self.archives = Archives(core)
        self.streams = Streams(core)
        self.images = Images(core)
        self.transfers = Transfers(core)
        self.networks = Networks(core)
        self.volumes = Volumes(core)
        self.events = core.events
        self.system = System(core, host, daemon_id)
        self.disk_use = DiskUse(core, self.containers, self.images, self.volumes)

    @classmethod
    async def open(cls, config: EngineConfig) -> Self:
        """Lock the data root, open the state, find or start the shim, and reconcile.

        Containers that run go on running; those that ended while no daemon was there get their
        exit code; what a crash left half done is removed.

        Raises:
            ConflictError: another daemon holds the data root, or a newer version wrote it.
            UnavailableError: the shim cannot be started.

        """
        async with AsyncExitStack() as stack:
            core, loaded = await _open_core(config, stack)
            daemon_id = loaded.facts.get("daemon_id") or str(uuid.uuid4())
            host = await core.threads.run(detect_host)
            _check_cgroup_driver(config.cgroup_driver, host)
            engine = cls(core, host, daemon_id)
            await engine._start(loaded, daemon_id)
            stack.push_async_callback(core.threads.run, engine.transfers.close)
            engine._stack = stack.pop_all()
            return engine
        raise AssertionError("unreachable: the stack swallows nothing")

    def configure_runtimes(
        self, runtimes: Mapping[str, tuple[str, ...]], default_runtime: str
    ) -> None:
        """Take over the runtimes of a configuration that was read again."""
        self._core.runtimes.configure(runtimes, default_runtime)

    async def close(self) -> None:
        """Let go of everything but the containers, which go on running under the shim."""
        await self._stack.aclose()

    async def _start(self, loaded: Loaded, daemon_id: str) -> None:
        core = self._core
        core.shim.on_event = self._on_event
        core.shim.on_replaced = self._reconciler.match
        hello = await core.shim.open()
        await core.threads.run_network(core.network.setup)
        core.background.spawn(guard_packet_filter(core), "packet-filter-guard")
        await self._reconciler.fill_table(loaded)
        may_delete = not (loaded.is_damaged or loaded.quarantined)
        await self._reconciler.reconcile(hello, may_delete=may_delete)
        if loaded.is_damaged:
            await core.state.forget_fact(REBUILT)
        core.shim.release_events()
        if loaded.facts.get("daemon_id") != daemon_id:
            await core.state.set_fact("daemon_id", daemon_id)
        await self._reconciler.restart_wanted()
        self._stock.refill()
        core.background.spawn(core.threads.run(self._bundles.prepare), "prepare")
        core.background.spawn(core.threads.run(reserve.fill, core.paths.reserve), "reserve")

    def _on_event(self, event: ShimEvent) -> None:
        if isinstance(event, OomEvent):
            self._exits.out_of_memory(event)
        elif event.exec_id is not None:
            self.execs.handle_exit(event)
        else:
            self._core.background.spawn(self._exits.handle(event), f"exit-{event.id[:12]}")


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the data root's lock for the length of the block.

    Raises:
        ConflictError: another process holds it.

    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            raise ConflictError(
                f"the data root {path.parent} is in use by another caisd (pid {holder or '?'})"
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _check_cgroup_driver(driver: str, host: Host) -> None:
    """Refuse a driver this host cannot have. UnsupportedError."""
    if driver != "systemd":
        return
    if host.hierarchy.version != 2:
        raise UnsupportedError("the systemd cgroup driver needs a host with cgroup v2 alone")
    if not Path("/run/systemd/system").is_dir():
        raise UnsupportedError("the systemd cgroup driver needs systemd as the first process")


def _network_of(config: EngineConfig) -> NetworkManager:
    return NetworkManager(
        data_root=str(config.data_root),
        exec_root=str(config.exec_root),
        options=NetworkOptions(
            bridge=config.bridge_name or None,
            bip=None if config.bridge_name else config.bridge_address or None,
        ),
        pool_size=config.ready_namespaces,
        warn=log.warning,
    )


async def _open_core(config: EngineConfig, stack: AsyncExitStack) -> tuple[Core, Loaded]:
    """Open the parts; ``stack`` closes them in the opposite order."""
    paths = Paths(config.data_root, config.exec_root)
    paths.ensure()
    stack.enter_context(_locked(paths.lock))
    reserve.release(paths.reserve)
    stack.callback(reserve.fill, paths.reserve)
    threads, background, clock = Threads(), Background(), Clock()
    stack.callback(threads.close)
    state, loaded = await threads.run(State.open, paths.database)
    stack.push_async_callback(state.close)
    copies = await threads.run(Copies.open, paths.copies)
    stack.callback(copies.close)
    snapshots = await threads.run(
        open_snapshotter, config.data_root / "snapshots", config.storage_driver
    )
    stack.callback(snapshots.close)
    content = await threads.run(ContentStore, config.data_root / "content")
    images = await threads.run(ImageStore.open, config.data_root, content, snapshots)
    stack.callback(images.close)
    network = _network_of(config)
    stack.push_async_callback(threads.run_network, network.teardown)
    core = Core(
        config=config,
        paths=paths,
        state=state,
        shim=ShimLink(paths, background, clock),
        images=images,
        snapshots=snapshots,
        network=network,
        volumes=await threads.run(VolumeStore, str(config.data_root)),
        copies=copies,
        boot_id=await threads.run(_read_boot_id),
        clock=clock,
        threads=threads,
        background=background,
    )
    stack.callback(core.shim.close)
    stack.push_async_callback(background.close, _CLOSE_GRACE_S)
    stack.callback(core.watch.close)
    stack.callback(core.events.close)
    return core, loaded
