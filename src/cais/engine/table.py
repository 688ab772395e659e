"""The containers in memory: found by id, name or id prefix, with what a record does not hold."""

from __future__ import annotations

import asyncio
import functools
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cais.engine.errors import ContainerNotFoundError, NameConflictError
from cais.engine.restart import Backoff
from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.engine.health import HealthMonitor
    from cais.engine.records import ContainerRecord


T = TypeVar("T")


class WaitResult(NamedTuple):
    """How a waited-for container ended; ``error`` only when waiting itself failed."""

    status_code: int
    error: str | None = None


class Container:
    """A record and what lives only as long as the daemon.

    ``lock`` is held by whatever changes the state (start, exit, pause, removal's decision), never
    while waiting for the container to end.
    """

    __slots__ = (
        "_ended",
        "_removed",
        "_run_ended",
        "backoff",
        "cleanup",
        "exit_on_next",
        "health",
        "is_kept",
        "lock",
        "record",
        "restart_gate",
        "run_started_s",
    )

    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.backoff = Backoff()
        self.restart_gate: asyncio.Future[None] | None = None
        self.cleanup: asyncio.Future[None] | None = None
        """Release of the last run's network; a start waits for it."""
        self.health: HealthMonitor | None = None
        self.exit_on_next = False
        """Stopped on purpose: no restart after the next exit."""
        self.is_kept = False
        """Being restarted on request: the end in between does not auto-remove it."""
        self.run_started_s: float | None = None
        self._ended: list[asyncio.Future[WaitResult]] = []
        self._removed: list[asyncio.Future[WaitResult]] = []
        self._run_ended: list[asyncio.Future[None]] = []

    @property
    def id(self) -> str:
        """The 64 hex digits."""
        return self.record.id

    def begin_anew(self) -> None:
        """Forget earlier stops and restarts: the user starts it."""
        self.exit_on_next = False
        self.backoff = Backoff()
        self.record.restart_count = 0
        self.record.state.is_manually_stopped = False

    def arm_restart(self) -> asyncio.Future[None]:
        """Return the future that ``cancel_restart`` completes."""
        self.restart_gate = asyncio.get_running_loop().create_future()
        return self.restart_gate

    def cancel_restart(self) -> None:
        """Make a pending restart settle as ended instead."""
        if self.restart_gate is not None and not self.restart_gate.done():
            self.restart_gate.set_result(None)

    def wait_ended(self) -> asyncio.Future[WaitResult]:
        """Return a future of the next time the container stops for good (no restart follows)."""
        return _register(self._ended)

    def wait_removed(self) -> asyncio.Future[WaitResult]:
        """Return a future of the container's removal, or of a failed attempt at it."""
        return _register(self._removed)

    def wait_run_ended(self) -> asyncio.Future[None]:
        """Return a future of the end of the present run, whether or not a restart follows."""
        return _register(self._run_ended)

    def tell_run_ended(self) -> None:
        """Resolve whoever follows the present run."""
        _resolve(self._run_ended, None)

    def tell_ended(self) -> None:
        """Resolve whoever waits for the end with the recorded exit code."""
        _resolve(self._ended, WaitResult(self.record.state.exit_code))

    def tell_removed(self, error: str | None = None) -> None:
        """Resolve whoever waits for the removal."""
        _resolve(self._removed, WaitResult(self.record.state.exit_code, error))


def _register(waiters: list[asyncio.Future[T]]) -> asyncio.Future[T]:
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    waiters.append(future)
    future.add_done_callback(functools.partial(_forget, waiters))
    return future


def _forget(waiters: list[asyncio.Future[T]], done: asyncio.Future[T]) -> None:
    if done in waiters:
        waiters.remove(done)


def _resolve(waiters: list[asyncio.Future[T]], result: T) -> None:
    for future in tuple(waiters):
        if not future.done():
            future.set_result(result)
    waiters.clear()


class Table:
    """Every container of the data root."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, str] = {}
        self._sorted_ids: list[str] = []

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, container_id: str) -> Container | None:
        """Return the container with this full id."""
        return self._by_id.get(container_id)

    def resolve(self, ref: str) -> Container:
        """Find by full id, then name, then unambiguous id prefix.

        Raises:
            ContainerNotFoundError: nothing fits.
            InvalidArgumentError: several ids begin so.

        """
        if not ref:
            raise ContainerNotFoundError(ref)
        found = self._by_id.get(ref) or self._by_id.get(
            self._by_name.get("/" + ref.removeprefix("/"), "")
        )
        return found or self._by_prefix(ref)

    def is_name_taken(self, name: str) -> bool:
        """Whether a container has this name (with its slash)."""
        return name in self._by_name

    def reserve_name(self, name: str, container_id: str) -> None:
        """Take a name before the container is there.

        Raises:
            NameConflictError: it is taken.

        """
        if name in self._by_name:
            raise NameConflictError(name, self._by_name[name])
        self._by_name[name] = container_id

    def release_name(self, name: str) -> None:
        """Give a name back."""
        self._by_name.pop(name, None)

    def add(self, container: Container) -> None:
        """Add a container whose name is reserved."""
        self._by_id[container.id] = container
        insort(self._sorted_ids, container.id)

    def discard(self, container: Container) -> None:
        """Take a container and its name out; idempotent."""
        if self._by_id.pop(container.id, None) is None:
            return
        self._sorted_ids.remove(container.id)
        if self._by_name.get(container.record.name) == container.id:
            del self._by_name[container.record.name]

    def _by_prefix(self, prefix: str) -> Container:
        index = bisect_left(self._sorted_ids, prefix)
        fitting = [one for one in self._sorted_ids[index : index + 2] if one.startswith(prefix)]
        if not fitting:
            raise ContainerNotFoundError(prefix)
        if len(fitting) > 1:
            raise InvalidArgumentError(f"multiple IDs found with provided prefix: {prefix}")
        return self._by_id[fitting[0]]
