"""What one shim holds: its containers and their execs, by id."""

from __future__ import annotations

from cais.errors import ConflictError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.shim.contracts import Checkpoints, Runtime
    from cais.shim.fields import Fields
    from cais.shim.oom import OomWatch
    from cais.shim.processes import Process
    from cais.shim.protocol import Document

    Key = tuple[str, str | None]
    """A container's id, and an exec's or None for the container's first process."""


class Container:
    """A container from its start to its exit."""

    __slots__ = ("bundle", "checkpoints", "id", "is_paused", "oom_watch", "process", "runtime")

    def __init__(
        self,
        id_: str,
        bundle: str,
        process: Process,
        runtime: Runtime,
        checkpoints: Checkpoints,
    ) -> None:
        self.id = id_
        self.bundle = bundle
        self.process = process
        self.runtime = runtime
        self.checkpoints = checkpoints
        self.is_paused = False
        self.oom_watch: OomWatch | None = None

    @property
    def state(self) -> str:
        """As ``hello`` tells it."""
        if not self.process.is_running:
            return "starting"
        return "paused" if self.is_paused else "running"


class Register:
    """See the module."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.execs: dict[Key, Process] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held, running or starting."""
        return not (self.containers or self.execs)

    def get(self, id_: str) -> Container:
        """Return a container. NotFoundError: it is not held."""
        container = self.containers.get(id_)
        if container is None:
            raise NotFoundError(f"container {id_} is not running")
        return container

    def get_running(self, id_: str) -> Container:
        """Return a container whose program runs. ConflictError: it is not that far."""
        container = self.get(id_)
        if not container.process.is_running:
            raise ConflictError(f"container {id_} is still starting")
        return container

    def find_process(self, key: Key) -> Process | None:
        """Return a process, None when it is not held."""
        if key[1] is not None:
            return self.execs.get(key)
        container = self.containers.get(key[0])
        return None if container is None else container.process

    def get_process(self, fields: Fields) -> Process:
        """Return the process a request names. NotFoundError: it is not held."""
        key = fields.id(), fields.optional_id("exec_id")
        process = self.find_process(key)
        if process is None:
            name = f"container {key[0]}" if key[1] is None else f"exec {key[1]}"
            raise NotFoundError(f"{name} is not running")
        return process

    def processes(self) -> Iterator[Process]:
        """Give all processes, first ones and execs."""
        for container in self.containers.values():
            yield container.process
        yield from self.execs.values()

    def statuses(self) -> list[Document]:
        """Return what is held, a document per container."""
        return [self._status(container) for container in self.containers.values()]

    def _status(self, container: Container) -> Document:
        process = container.process
        return {
            "id": container.id,
            "pid": process.pid,
            "start_ticks": process.start_ticks,
            "started_at_ns": process.started_at_ns,
            "bundle": container.bundle,
            "state": container.state,
            "tty": process.tty,
            "execs": {
                exec_id: each.pid
                for (id_, exec_id), each in self.execs.items()
                if id_ == container.id and exec_id is not None and each.is_running
            },
            "log_dropped": process.streams.log_dropped,
            "adopted": process.adopted,
        }
