"""The requests that change what runs: signals, limits, freezing, a terminal's size, checkpoints."""

from __future__ import annotations

import signal

from cais.errors import ConflictError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.shim.contracts import Pending, Reply
    from cais.shim.fields import Fields
    from cais.shim.register import Container, Register
    from cais.spec.runtime import Resources


class Changes:
    """A method per request, which takes its fields."""

    def __init__(self, register: Register) -> None:
        self._register = register

    def resize(self, fields: Fields) -> None:
        """Set the size of a terminal."""
        process = self._register.get_process(fields)
        height, width = fields.number("height", 0, 0xFFFF), fields.number("width", 0, 0xFFFF)
        if not process.streams.resize(height, width):
            raise ConflictError("the process has no terminal")

    def kill(self, fields: Fields, reply: Reply) -> None:
        """Signal a container, an exec, or everything in a container."""
        number = fields.number("signal", 1, signal.SIGRTMAX)
        if fields.optional_id("exec_id") is not None:
            self._register.get_process(fields).send_signal(number)
            reply.ok()
            return
        container = self._register.get(fields.id())
        pending: Pending | None = None
        if not container.process.is_running:
            _kill_starting(container, number)
        elif fields.flag("all"):
            if number != signal.SIGKILL:
                raise UnsupportedError("only SIGKILL can be sent to all processes of a container")
            container.runtime.kill_all(container.id, container.bundle)
        else:
            init_pidfd = container.process.pidfd
            pending = container.runtime.kill(container.id, container.bundle, init_pidfd, number)
        _conclude(pending, reply.ok, reply)

    def pause(self, fields: Fields, reply: Reply) -> None:
        """Freeze a container."""
        container = self._register.get_running(fields.id())
        if container.is_paused:
            raise ConflictError(f"container {container.id} is already paused")

        def paused() -> None:
            container.is_paused = True
            reply.ok()

        _conclude(container.runtime.pause(container.id, container.bundle), paused, reply)

    def resume(self, fields: Fields, reply: Reply) -> None:
        """Thaw a container."""
        container = self._register.get_running(fields.id())
        if not container.is_paused:
            raise ConflictError(f"container {container.id} is not paused")

        def resumed() -> None:
            container.is_paused = False
            reply.ok()

        _conclude(container.runtime.resume(container.id, container.bundle), resumed, reply)

    def update(self, fields: Fields, reply: Reply) -> None:
        """Change limits."""
        container = self._register.get_running(fields.id())
        resources: Resources = fields.document("resources")  # type: ignore[assignment] # it checks
        pending = container.runtime.update(container.id, container.bundle, resources)
        _conclude(pending, reply.ok, reply)

    def checkpoint(self, fields: Fields, reply: Reply) -> None:
        """Write a container's processes into a directory."""
        container = self._register.get_running(fields.id())
        directory, leave_running = fields.path("directory"), fields.flag("leave_running")
        pending = container.checkpoints.checkpoint(
            container.id,
            container.bundle,
            container.process.pidfd,
            directory,
            leave_running=leave_running,
        )
        _conclude(pending, reply.ok, reply)


def _kill_starting(container: Container, number: int) -> None:
    if number != signal.SIGKILL:
        raise ConflictError(f"container {container.id} is still starting")
    container.process.abort()


def _conclude(pending: Pending | None, done: Callable[[], None], reply: Reply) -> None:
    """Call ``done`` when a change is over, which it is unless it is pending."""
    if pending is None:
        done()
    else:
        pending.then(done, reply.fail)
