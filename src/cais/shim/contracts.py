"""What ``containers`` needs of its neighbours. Imported for type checking only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.runtime.launch import Launch, Stdio
    from cais.spec.runtime import Resources


class Runtime(Protocol):
    """The module ``cais.runtime.container``, or a stand-in; see there for each contract."""

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

    def kill_all(self, container_id: str, bundle: str) -> None:
        """Kill all its processes."""

    def pause(self, container_id: str, bundle: str) -> None:
        """Freeze it."""

    def resume(self, container_id: str, bundle: str) -> None:
        """Thaw it."""

    def update(self, container_id: str, bundle: str, resources: Resources) -> None:
        """Change its limits."""

    def destroy(self, container_id: str, bundle: str) -> bool:
        """Remove what is left of it; say whether the kernel killed any of it for memory."""

    def cgroup_of(self, container_id: str, bundle: str) -> Cgroup:
        """Return its control group."""


class Reply(Protocol):
    """The answer to one request: one call of either, now or later."""

    def ok(self, **fields: object) -> None:
        """Answer."""

    def fail(self, error: BaseException) -> None:
        """Answer with a failure."""
