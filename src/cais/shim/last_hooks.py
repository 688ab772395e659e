"""poststop hooks under way: what follows a container's end waits for them, nothing else does.

Spec: OCI runtime-spec 1.2, runtime.md "Lifecycle": after the container is destroyed, before
anybody is told; a failure is logged.
"""

from __future__ import annotations

from cais.errors import CaisError, InternalError
from cais.shim.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.shim.contracts import HookRun, Runtime
    from cais.shim.loop import Loop


class LastHooks:
    """The hooks of all containers that have ended."""

    def __init__(self, loop: Loop, report: Callable[[BaseException], None]) -> None:
        """``report`` logs what failed."""
        self._loop = loop
        self._report = report
        self._running: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """Whether some are under way."""
        return bool(self._running)

    def has(self, id_: str) -> bool:
        """Whether those of the container ``id_`` are."""
        return id_ in self._running

    def then(self, runtime: Runtime, id_: str, bundle: str, done: Callable[[], None]) -> None:
        """Run the hooks of a container that is gone, then call ``done``; at once without any."""
        try:
            run = runtime.begin_poststop(id_, bundle)
        except Exception as exc:  # noqa: BLE001 - its end must be told all the same
            self._report(exc)
            run = None
        if run is None:
            done()
            return
        self._running.add(id_)
        self._wait(run, id_, done)

    def _wait(self, run: HookRun, id_: str, done: Callable[[], None]) -> None:
        fd = run.fileno()

        def advance(_events: int) -> None:
            self._loop.unwatch(fd)  # first: the run closes it, and its number is soon another's
            if not self._is_over(run):
                self._wait(run, id_, done)
                return
            self._running.remove(id_)
            for text in run.warnings:
                self._report(InternalError(text))
            done()

        self._loop.watch(fd, READ, advance)

    def _is_over(self, run: HookRun) -> bool:
        try:
            return run.advance()
        except (OSError, CaisError) as exc:
            self._report(exc)
            return True
