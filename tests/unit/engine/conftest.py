"""An engine on fakes: real state, real files under tmp_path, time that only the test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from quiet_loop import settle, watch_threads

from cais.engine.clock import Clock
from cais.engine.config import EngineConfig
from cais.engine.copies import Copies
from cais.engine.core import Core
from cais.engine.engine import Engine
from cais.engine.oci import detect_host
from cais.engine.paths import Paths
from cais.engine.state import State
from cais.spec.container import ContainerConfig as Config
from cais.spec.container import CreateBody, HostConfig, NetworkingConfig
from cais.testing.engine_network import FakeNetwork
from cais.testing.engine_parts import FakeImages, FakeShim, FakeSnapshots
from cais.volumes.store import VolumeStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class FakeClock(Clock):
    """Time stands still until ``advance``."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + delay_s, next(self._order), done))
        await done

    async def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due runs, in order."""
        end_s = self.now_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            due_s, _, done = heapq.heappop(self._sleepers)
            self.now_s = max(self.now_s, due_s)
            if not done.done():
                done.set_result(None)
            await settle()
        self.now_s = end_s
        await settle()


class Bench:
    """An engine and the fakes it stands on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shim = FakeShim()
        self.images = FakeImages()
        self.snapshots = FakeSnapshots()
        self.network = FakeNetwork()
        self.clock = FakeClock()
        self.boot_id = "boot-1"
        self.engine: Engine
        self.core: Core

    async def open(self) -> Engine:
        config = EngineConfig(data_root=self.root / "data", exec_root=self.root / "exec")
        paths = Paths(config.data_root, config.exec_root)
        paths.ensure()
        state, loaded = State.open(paths.database)
        self.core = Core(
            config=config,
            paths=paths,
            state=state,
            shim=self.shim,  # type: ignore[arg-type]
            images=self.images,  # type: ignore[arg-type]
            snapshots=self.snapshots,  # type: ignore[arg-type]
            network=self.network,  # type: ignore[arg-type]
            volumes=VolumeStore(str(config.data_root)),
            copies=Copies.open(paths.copies),
            boot_id=self.boot_id,
            clock=self.clock,
        )
        self.engine = Engine(self.core, HOST, "daemon")
        await self.engine._start(loaded, "daemon")
        return self.engine

    async def close(self) -> None:
        """As a daemon that ends in good order; ``crash`` is the other way."""
        self.core.events.close()
        self.core.watch.close()
        await self.core.background.close(0)
        await self.core.state.close()
        self.core.threads.close()
        self.core.copies.close()

    async def reopen(self) -> Engine:
        await self.close()
        return await self.open()

    async def create(self, name: str | None = None, **options: Any) -> str:
        """Create a container; options are fields of Config or HostConfig."""
        container_id, _ = await self.engine.containers.create(name, body(**options))
        return container_id

    async def run(self, name: str | None = None, **options: Any) -> str:
        container_id = await self.create(name, **options)
        await self.engine.lifecycle.start(container_id)
        return container_id

    async def end(self, container_id: str, code: int | None = 0, **how: bool) -> None:
        self.shim.end(container_id, code, **how)
        await settle()

    async def status(self, ref: str) -> str:
        document = await self.engine.containers.inspect(ref)
        return str(document["State"]["Status"])

    def actions(self) -> list[str]:
        """The container events so far."""
        return [event["Action"] for event in self.core.events._kept if event["Type"] == "container"]


HOST = detect_host()


def body(**options: Any) -> CreateBody:
    host = {
        name: options.pop(name) for name in tuple(options) if name in HostConfig.__struct_fields__
    }
    options.setdefault("image", "busybox")
    options.setdefault("cmd", ["sleep", "9"])
    host.setdefault("security_opt", ["seccomp=unconfined"])
    networking = options.pop("networking", NetworkingConfig())
    return CreateBody(Config(**options), HostConfig(**host), networking)


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Bench]:
    watch_threads()
    bench = Bench(root)
    await bench.open()
    try:
        yield bench
    finally:
        await bench.close()
        bench.shim.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as one:
        yield one
