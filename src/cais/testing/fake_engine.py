# ruff: noqa: ANN401 - a double takes whatever it is given
"""An engine that runs nothing: for tests of the API, which drive it over a real socket.

Every call is recorded in ``calls``; ``failures[name]`` makes the call of that name raise. An
attachment is one end of a socket pair; ``sessions`` gives the test the other end, the container's.
"""

from __future__ import annotations

import asyncio
import queue
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

CONTAINER_ID = "c0ffee" + "0" * 58
IMAGE_ID = "sha256:" + "1" * 64
EXEC_ID = "e" * 64


class FakeWaitResult(NamedTuple):
    """Stands in for ``engine.lifecycle.WaitResult``."""

    status_code: int
    error: str | None = None


class FakeSession:
    """Stands in for ``engine.streams.AttachSession``."""

    def __init__(self, *, tty: bool, detach_keys: bytes, prefix: list[bytes]) -> None:
        self.tty = tty
        self.sock, self.peer = socket.socketpair()
        self.sock.settimeout(0)
        self.detach_keys = detach_keys
        self.detached = False
        self.closed = False
        self.prefix: AsyncIterator[bytes] | None = pieces(prefix) if prefix else None
        self.on_end: Callable[[], Awaitable[object]] | None = None

    def on_detach(self) -> None:
        """Remember that the client detached."""
        self.detached = True

    def close(self) -> None:
        """Close the client's end."""
        self.closed = True
        self.sock.close()


class FakeSubscription:
    """Events put into ``events``; None ends it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.closed = asyncio.Event()

    def __aiter__(self) -> FakeSubscription:
        return self

    async def __anext__(self) -> dict[str, Any]:
        event = await self.events.get()
        if event is None:
            raise StopAsyncIteration
        return event

    def close(self) -> None:
        """Remember it."""
        self.closed.set()


class FakeEngine:
    """Has the facade's attributes; each is the fake itself, the method names do not collide."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failures: dict[str, Exception] = {}
        self.answers: dict[str, Any] = {}
        self.tty = False
        self.detach_keys = b""
        self.prefix: list[bytes] = []
        self.sessions: queue.Queue[FakeSession] = queue.Queue()
        self._peers: list[socket.socket] = []
        self.subscriptions: list[FakeSubscription] = []
        self.waits: list[asyncio.Future[FakeWaitResult]] = []
        self.loaded = bytearray()
        self.containers = _Part(
            self, "containers", "create inspect list rename remove prune update"
        )
        self.lifecycle = _Lifecycle(
            self, "lifecycle", "start stop restart kill pause unpause top resize"
        )
        self.checkpoints = _Part(self, "checkpoints", "list create remove")
        self.commits = _Part(self, "commits", "commit")
        self.changes = _Part(self, "changes", "changes")
        self.archives = _Part(self, "archives", "stat put")
        self.streams = _Streams(self, "streams", "")
        self.execs = _Execs(self, "execs", "create resize")
        self.images = _Images(self, "images", "list inspect history tag remove prune")
        self.transfers = _Transfers(self, "transfers", "log_in describe search")
        self.networks = _Part(self, "networks", "list inspect prune")
        self.volumes = _Part(self, "volumes", "list inspect create remove prune")
        self.events = _Events(self, "events", "")
        self.disk_use = _Part(self, "disk_use", "report")
        self.system = _System(self, "system", "info")
        self.answers.update(
            {
                "containers.create": (CONTAINER_ID, []),
                "containers.inspect": container_document(),
                "containers.list": [],
                "containers.update": [],
                "execs.create": EXEC_ID,
                "system.info": {"ID": "fake", "Containers": 0},
                "images.list": [],
                "images.inspect": {"Id": IMAGE_ID, "Size": 3, "RepoTags": ["busybox:latest"]},
                "networks.list": [],
                "volumes.list": {"Volumes": [], "Warnings": None},
            }
        )

    def record(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Remember a call; raise what the test put into ``failures``."""
        positional = {str(index): value for index, value in enumerate(args)}
        self.calls.append((name, {**positional, **kwargs}))
        if name in self.failures:
            raise self.failures[name]

    def arguments(self, name: str) -> Mapping[str, Any]:
        """Return the arguments of the last call of ``name``; positions are text: 0, 1, ..."""
        return next(arguments for called, arguments in reversed(self.calls) if called == name)

    def session(self) -> FakeSession:
        """Make an attachment and hand the test its other end."""
        session = FakeSession(tty=self.tty, detach_keys=self.detach_keys, prefix=self.prefix)
        self._peers.append(session.peer)
        self.sessions.put(session)
        return session

    def close(self) -> None:
        """Close the containers' ends of all attachments."""
        for peer in self._peers:
            peer.close()


class _Part:
    def __init__(self, engine: FakeEngine, name: str, methods: str) -> None:
        self._engine = engine
        self._name = name
        for method in methods.split():
            setattr(self, method, self._coroutine(f"{name}.{method}"))

    def _coroutine(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self._engine.record(name, *args, **kwargs)
            answer = self._engine.answers.get(name)
            return await answer() if callable(answer) else answer

        return call


class _Lifecycle(_Part):
    def wait(self, ref: str, condition: str) -> asyncio.Future[FakeWaitResult]:
        self._engine.record("lifecycle.wait", ref, condition)
        future = asyncio.get_running_loop().create_future()
        self._engine.waits.append(future)
        return future


class _Streams(_Part):
    async def attach(self, ref: str, **options: Any) -> FakeSession:
        self._engine.record("streams.attach", ref, **options)
        return self._engine.session()

    async def logs(self, ref: str, **options: Any) -> tuple[bool, AsyncIterator[bytes]]:
        self._engine.record("streams.logs", ref, **options)
        return self._engine.tty, self._engine.answers.get("streams.logs") or pieces([b"log"])


class _Execs(_Part):
    async def start(self, exec_id: str, **options: Any) -> FakeSession | None:
        self._engine.record("execs.start", exec_id, **options)
        return None if options.get("detach") else self._engine.session()

    def inspect(self, exec_id: str) -> dict[str, Any]:
        self._engine.record("execs.inspect", exec_id)
        return {"ID": exec_id, "ExitCode": 0, "Running": False, "ProcessConfig": {"tty": False}}


class _Images(_Part):
    async def load(
        self, source: AsyncIterator[bytes], *, quiet: bool = False, platform: object = None
    ) -> AsyncIterator[dict[str, Any]]:
        self._engine.record("images.load", quiet=quiet, platform=platform)
        async for piece in source:
            self._engine.loaded += piece
        yield {"stream": "Loaded image: busybox:latest\n"}

    async def save(self, refs: list[str], platform: object = None) -> AsyncIterator[bytes]:
        self._engine.record("images.save", list(refs), platform)
        for piece in self._engine.answers.get("images.save", [b"tar"]):
            yield piece

    async def import_(self, source: AsyncIterator[bytes], **options: Any) -> str:
        self._engine.record("images.import_", **options)
        async for piece in source:
            self._engine.loaded += piece
        return IMAGE_ID


class _Transfers(_Part):
    async def pull(self, name: str, tag: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        self._engine.record("transfers.pull", name, tag, **options)
        yield {"status": "Pulling from library/busybox", "id": "latest"}

    async def push(self, name: str, tag: str, **options: Any) -> AsyncIterator[dict[str, Any]]:
        self._engine.record("transfers.push", name, tag, **options)
        yield {"status": "The push refers to repository [docker.io/library/busybox]"}


class _Events(_Part):
    def subscribe(self, **options: Any) -> FakeSubscription:
        self._engine.record("events.subscribe", **options)
        self._engine.subscriptions.append(FakeSubscription())
        return self._engine.subscriptions[-1]


class _System(_Part):
    def version(self) -> dict[str, Any]:
        return {"Version": "0.1.0", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux"}

    def ping(self) -> dict[str, str]:
        return {}


async def pieces(chunks: list[bytes]) -> AsyncIterator[bytes]:
    """Give bytes as the engine gives them."""
    for chunk in chunks:
        yield chunk


def container_document(*, tty: bool = False) -> dict[str, Any]:
    """Return as much of an inspected container as clients look at."""
    return {
        "Id": CONTAINER_ID,
        "Name": "/fake",
        "Image": IMAGE_ID,
        "Config": {"Tty": tty, "OpenStdin": True, "Image": "busybox", "StopSignal": ""},
        "HostConfig": {"AutoRemove": False, "Annotations": {"a": "b"}, "LogConfig": {}},
        "State": {"Status": "running", "Running": True, "Paused": False, "Restarting": False},
        "NetworkSettings": {"Networks": {"bridge": {"DNSNames": None, "GwPriority": 0}}},
        "Mounts": [],
    }
