"""The rooms below the engine, in memory: for tests of what the engine decides.

``FakeShim`` is the client and the link to it in one. A test ends a container with ``end`` and an
exec with ``end_exec``; ``refuse`` makes the next start fail. What was asked of it is in ``calls``.
"""

from __future__ import annotations

import itertools
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cais.errors import ConflictError, NotFoundError
from cais.images.store import ImageNotFoundError, ImageRecord
from cais.shim.values import ContainerStatus, ExitEvent, OomEvent, ShimHello, Started
from cais.snapshots.snapshotter import (
    Kind,
    Layer,
    Mount,
    Snapshot,
    SnapshotKey,
    SnapshotNotFoundError,
    Usage,
)
from cais.spec.digest import Digest, ImageId
from cais.spec.image import ContainerConfig, ImageConfig, RootFs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

IMAGE_ID = ImageId(Digest("sha256:" + "1" * 64))


@dataclass
class Process:
    """A container or exec the fake shim runs."""

    pid: int
    tty: bool
    paused: bool = False


class FakeShim:
    """Runs nothing and remembers everything."""

    def __init__(self) -> None:
        self.client = self
        self.on_event: Callable[[Any], None] = lambda _event: None
        self.on_replaced: Callable[[ShimHello], Awaitable[None]] | None = None
        self.calls: list[tuple[str, ...]] = []
        self.running: dict[str, Process] = {}
        self.execs: dict[tuple[str, str], Process] = {}
        self.unacknowledged: dict[int, ExitEvent] = {}
        self.adoptable: set[str] = set()
        self.attached: list[socket.socket] = []
        self.refuse: Exception | None = None
        self.ends_at_once: int | None = None
        """Exit code of the next started containers, which end before their start is answered."""

        self.ignores_signals: set[int] = set()
        self._pids = itertools.count(1000)
        self._seqs = itertools.count(1)

    # The link

    async def open(self) -> ShimHello:
        """Say what runs and which exits are not acknowledged."""
        statuses = tuple(
            ContainerStatus(
                id=container_id,
                pid=process.pid,
                start_ticks=7,
                started_at_ns=1_000_000_000,
                bundle="",
                state="paused" if process.paused else "running",
                tty=process.tty,
                execs={},
                log_dropped=0,
                adopted=False,
            )
            for container_id, process in self.running.items()
        )
        return ShimHello(1, 1, statuses, tuple(self.unacknowledged.values()))

    def release_events(self) -> None:
        """Nothing is kept back."""

    def acknowledge(self, event: ExitEvent) -> None:
        """Forget an exit."""
        self.unacknowledged.pop(event.exit_seq, None)

    def close(self) -> None:
        """Close the attachments."""
        for each in self.attached:
            each.close()

    # The client

    async def start(self, id: str, *, tty: bool, **_rest: Any) -> Started:  # noqa: A002, ANN401
        """Run, refuse, or run and end."""
        self.calls.append(("start", id))
        if self.refuse is not None:
            failure, self.refuse = self.refuse, None
            raise failure
        pid = next(self._pids)
        self.running[id] = Process(pid, tty=tty)
        if self.ends_at_once is not None:
            self.end(id, self.ends_at_once)
        return Started(pid, 1_000_000_000, 7)

    async def exec(self, id: str, exec_id: str, *, tty: bool, **_rest: Any) -> Started:  # noqa: A002, ANN401
        """Run an exec."""
        self.calls.append(("exec", id, exec_id))
        if self.refuse is not None:
            failure, self.refuse = self.refuse, None
            raise failure
        pid = next(self._pids)
        self.execs[id, exec_id] = Process(pid, tty=tty)
        return Started(pid, 1_000_000_000, 7)

    async def attach(self, id: str, exec_id: str | None = None, **_rest: Any) -> socket.socket:  # noqa: A002, ANN401
        """Give one end of a pair; the other is in ``attached``."""
        self.calls.append(("attach", id, exec_id or ""))
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        self.attached.append(theirs)
        return ours

    async def detach(self, id: str, exec_id: str | None = None) -> None:  # noqa: A002
        """Note it."""
        self.calls.append(("detach", id, exec_id or ""))

    async def kill(
        self,
        id: str,  # noqa: A002
        signal: int,
        *,
        exec_id: str | None = None,
        everything: bool = False,
    ) -> None:
        """End what is signalled, unless the signal is ignored."""
        del everything
        self.calls.append(("kill", id, exec_id or "", str(signal)))
        if exec_id is not None:
            self.end_exec(id, exec_id, 128 + signal)
            return
        if id not in self.running:
            raise NotFoundError(f"no container {id}")
        if signal not in self.ignores_signals:
            self.end(id, 128 + signal)

    async def pause(self, id: str) -> None:  # noqa: A002
        """Freeze."""
        if id not in self.running:
            raise NotFoundError(f"no container {id}")
        self.running[id].paused = True

    async def resume(self, id: str) -> None:  # noqa: A002
        """Thaw."""
        if id not in self.running:
            raise NotFoundError(f"no container {id}")
        if not self.running[id].paused:
            raise ConflictError("not paused")
        self.running[id].paused = False

    async def resize(
        self,
        id: str,  # noqa: A002
        exec_id: str | None = None,
        *,
        height: int,
        width: int,
    ) -> None:
        """Note the size."""
        self.calls.append(("resize", id, exec_id or "", f"{height}x{width}"))

    async def update(self, id: str, resources: Mapping[str, Any]) -> None:  # noqa: A002
        """Note which resources changed."""
        self.calls.append(("update", id, *sorted(resources)))

    async def adopt(self, id: str, *, pid: int, paused: bool, **_rest: Any) -> None:  # noqa: A002, ANN401
        """Take over what the test says still runs."""
        self.calls.append(("adopt", id))
        if id in self.running:
            raise ConflictError(f"container {id} is already running")
        if id not in self.adoptable:
            raise NotFoundError(f"no process {pid}")
        self.running[id] = Process(pid, tty=False)
        self.running[id].paused = paused

    async def create_netns(self, path: object, owner: object = None) -> tuple[int, int]:
        """Pretend."""
        del path, owner
        return -1, -1

    # The test

    def end(self, container_id: str, code: int | None = 0, *, oom_killed: bool = False) -> None:
        """End a container: the exit is kept and told."""
        process = self.running.pop(container_id)
        self._tell(container_id, None, process.pid, code, oom_killed=oom_killed)

    def end_exec(self, container_id: str, exec_id: str, code: int = 0) -> None:
        """End an exec."""
        process = self.execs.pop((container_id, exec_id))
        self._tell(container_id, exec_id, process.pid, code, oom_killed=False)

    def run_out_of_memory(self, container_id: str) -> None:
        """Tell of an out-of-memory kill."""
        self.on_event(OomEvent(container_id, 1_000_000_000))

    def _tell(
        self,
        container_id: str,
        exec_id: str | None,
        pid: int,
        code: int | None,
        *,
        oom_killed: bool,
    ) -> None:
        event = ExitEvent(
            exit_seq=next(self._seqs),
            id=container_id,
            exec_id=exec_id,
            pid=pid,
            code=code,
            signal=None,
            oom_killed=oom_killed,
            exited_at_ns=2_000_000_000,
        )
        self.unacknowledged[event.exit_seq] = event
        self.on_event(event)


@dataclass
class FakeImages:
    """One image, ``busybox:latest``, whose configuration the test may change."""

    config: ContainerConfig = field(default_factory=ContainerConfig)

    def record(self) -> ImageRecord:
        """Return the image."""
        return ImageRecord(
            id=IMAGE_ID,
            repo_tags=("busybox:latest",),
            repo_digests=(),
            config=ImageConfig(os="linux", config=self.config, rootfs=RootFs("layers", [])),
            layers=(),
            manifest=IMAGE_ID,
            created_ns=1,
            tagged_ns=0,
            parent=None,
        )

    def resolve(self, ref: str) -> ImageRecord:
        """Find the image by its names."""
        if ref in ("busybox", "busybox:latest", IMAGE_ID, IMAGE_ID[7:19]):
            return self.record()
        raise ImageNotFoundError(ref if ":" in ref else f"{ref}:latest")

    def find_id(self, ref: str) -> ImageId:
        """Return the id of what ``resolve`` finds."""
        return self.resolve(ref).id

    def children(self, image_id: str) -> list[ImageId]:
        """Return nothing."""
        del image_id
        return []

    def close(self) -> None:
        """Nothing is open."""

    def list(self) -> list[ImageRecord]:
        """Return the image."""
        return [self.record()]


class FakeSnapshots:
    """Snapshots without directories."""

    driver = "overlay2"

    def __init__(self) -> None:
        self.active: dict[str, str | None] = {}

    def status(self) -> list[tuple[str, str]]:
        """Return one line."""
        return [("Backing Filesystem", "extfs")]

    def prepare(self, key: str, parent: str | None) -> tuple[Mount, ...]:
        """Remember it."""
        self.active[key] = parent
        return self.mounts(key)

    def mounts(self, key: str, *, ephemeral: bool = False) -> tuple[Mount, ...]:
        """Return an overlay mount."""
        del ephemeral
        if key not in self.active:
            raise SnapshotNotFoundError(key)
        return (Mount("overlay", "overlay", options=("lowerdir=/l", f"upperdir=/u/{key}")),)

    def planned_mounts(self, key: str) -> tuple[Mount, ...]:
        """Return the same."""
        return self.mounts(key)

    def places(self, key: str) -> tuple[str, ...]:
        """Nothing is on disk."""
        del key
        return ()

    def trim(self, key: str) -> None:
        """Nothing is on disk."""
        del key

    def layer(self, key: str) -> Layer:
        """Return no directories."""
        del key
        return Layer("", ())

    def usage(self, key: str) -> Usage:
        """Return a size."""
        del key
        return Usage(42, 1)

    def remove(self, key: str) -> None:
        """Forget it."""
        if self.active.pop(key, "absent") == "absent":
            raise SnapshotNotFoundError(key)

    def walk(self) -> Iterator[Snapshot]:
        """Yield the snapshots."""
        for key in tuple(self.active):
            yield Snapshot(SnapshotKey(key), Kind.ACTIVE, None, 1)
