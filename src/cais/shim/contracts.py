"""What ``containers`` needs of its neighbours. Imported for type checking only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cais.linux.cgroups import Cgroup
    from cais.runtime.launch import Running, Stdio
    from cais.spec.runtime import Resources


class Launch(Protocol):
    """A start or an exec in progress; see ``cais.runtime.launch.Launch``."""

    @property
    def children(self) -> Iterable[int]:
        """Those that the loop must not reap."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``advance`` can make progress."""

    def advance(self) -> Running | None:
        """Make progress; None while it is not finished. The descriptor may be another then."""

    def is_deserted(self) -> bool:
        """Say whether to call ``advance`` all the same: its child has ended without a word."""

    def abort(self) -> None:
        """Give it up."""


class Pending(Protocol):
    """A change under way."""

    def then(self, done: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        """Have one of both called, once, when it is over."""


class HookRun(Protocol):
    """Hooks under way; see ``cais.runtime.hook_runner.HookRun``."""

    warnings: list[str]

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``advance`` can make progress."""

    def advance(self) -> bool:
        """Say whether all have been run."""


class Checkpoints(Protocol):
    """Checkpoints of a runtime's containers: ``own_checkpoints``, or another runtime's own."""

    def begin_restore(
        self,
        container_id: str,
        bundle: str,
        checkpoint: str,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> Launch:
        """Start a container from what was written into the directory ``checkpoint``."""

    def checkpoint(
        self,
        container_id: str,
        bundle: str,
        init_pidfd: int,
        directory: str,
        *,
        leave_running: bool,
    ) -> Pending:
        """Write its processes into ``directory``; they end unless ``leave_running``."""


class Runtime(Protocol):
    """The module ``cais.runtime.container``, another OCI runtime (``foreign``), or a stand-in.

    See the module for each contract. What is not over when it returns is ``Pending``.
    """

    def begin(
        self,
        container_id: str,
        bundle: str,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> Launch:
        """Start a container."""

    def begin_exec(
        self,
        container_id: str,
        bundle: str,
        document: str,
        init_pidfd: int,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> Launch:
        """Start one more process in it."""

    def kill(self, container_id: str, bundle: str, init_pidfd: int, number: int) -> Pending | None:
        """Signal its first process."""

    def kill_all(self, container_id: str, bundle: str) -> None:
        """Kill all its processes."""

    def pause(self, container_id: str, bundle: str) -> Pending | None:
        """Freeze it."""

    def resume(self, container_id: str, bundle: str) -> Pending | None:
        """Thaw it."""

    def update(self, container_id: str, bundle: str, resources: Resources) -> Pending | None:
        """Change its limits."""

    def destroy(self, container_id: str, bundle: str) -> bool:
        """Remove what is left of it; say whether the kernel killed any of it for memory."""

    def begin_poststop(self, container_id: str, directory: str) -> HookRun | None:
        """Begin the hooks of a container that is gone; None: it has none."""

    def cgroup_of(self, container_id: str, bundle: str) -> Cgroup:
        """Return its control group."""


class Reply(Protocol):
    """The answer to one request: one call of either, now or later."""

    def ok(self, **fields: object) -> None:
        """Answer."""

    def fail(self, error: BaseException) -> None:
        """Answer with a failure."""
