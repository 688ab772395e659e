"""More processes in a running container."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cais.engine.errors import (
    CommandLaunchError,
    ContainerLaunchError,
    ExecNotFoundError,
    NotRunningError,
    PausedError,
    RestartingError,
)
from cais.engine.names import new_id
from cais.engine.streams import AttachSession
from cais.errors import CaisError, ConflictError, InvalidArgumentError, NotFoundError
from cais.runtime.launch import LaunchError
from cais.spec.detach_keys import DEFAULT_DETACH_KEYS, parse_detach_keys

if TYPE_CHECKING:
    from cais.engine.bundle import BundleWriter
    from cais.engine.core import Core
    from cais.engine.table import Container
    from cais.shim.values import ContainerStatus, ExitEvent
    from cais.spec.container import ExecBody

log = logging.getLogger(__name__)

_START_PREFIX = "OCI runtime exec failed: exec failed: unable to start container process: "
_FAILED_TO_START = 126
_NOT_FOUND = 127
_RESIZE_LIMIT_S = 10.0
_EXIT_LIMIT_S = 5.0
_KEPT_ENDED_S = 300.0
"""How long an ended exec can still be inspected, as Docker keeps them."""


@dataclass(slots=True)
class Exec:
    """One exec, as long as it is remembered. ``exit_code`` is None until it has ended."""

    id: str
    container: Container
    body: ExecBody
    is_started: bool = False
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    ended_s: float | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it runs or never will."""

    ended: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    detach_keys: bytes = b""

    @property
    def command(self) -> str:
        """The command as in event names."""
        return " ".join(self.body.cmd or ())


class Execs:
    """``/exec``: created, then started once, then inspected."""

    def __init__(self, core: Core, bundles: BundleWriter) -> None:
        self._core = core
        self._bundles = bundles
        self._execs: dict[str, Exec] = {}

    async def create(self, ref: str, body: ExecBody) -> str:
        """Prepare a process in a running container; return the exec's id.

        Raises:
            NotRunningError: the container is not running.
            ConflictError: it is paused or restarting.
            InvalidArgumentError: no command, malformed user or detach keys.

        """
        container = self._core.table.resolve(ref)
        if not body.cmd:
            raise InvalidArgumentError("No exec command specified")
        keys = parse_detach_keys(body.detach_keys) or DEFAULT_DETACH_KEYS
        check_ready(container)
        self._bundles.check_exec(container.record, body)
        self._forget_old()
        one = Exec(new_id(), container, body, detach_keys=keys)
        self._execs[one.id] = one
        self._announce(one, f"exec_create: {one.command}")
        return one.id

    async def start(
        self,
        exec_id: str,
        *,
        detach: bool = False,
        tty: bool | None = None,
        console_size: tuple[int, int] | None = None,
    ) -> AttachSession | None:
        """Run it; None if ``detach``, else the client's attachment.

        Args:
            exec_id: full id.
            detach: do not attach.
            tty: ignored: what was created counts, as in Docker.
            console_size: height, width.

        Raises:
            ExecNotFoundError: no such exec.
            ConflictError: started before; the container is paused or not running.
            CommandLaunchError: the command cannot be executed; its exit code is 126 or 127.
            ContainerLaunchError: the process cannot be set up.

        """
        del tty
        one = self._find(exec_id)
        if one.is_started:
            word = "is already running" if one.running else "has already run"
            raise ConflictError(f"Error: Exec command {exec_id} {word}")
        check_ready(one.container)
        one.is_started = True
        session = None if detach else await self._attach(one)
        try:
            await self.run(one, console_size or one.body.console_size)
        except BaseException:
            if session is not None:
                session.close()
            raise
        return session

    async def run(self, one: Exec, console_size: tuple[int, int] | None = None) -> None:
        """Start the process of an exec whose attachments are made.

        Raises:
            CommandLaunchError: the command cannot be executed.
            CaisError: anything else.

        """
        one.is_started = True
        self._announce(one, f"exec_start: {one.command}")
        record = one.container.record
        try:
            document = await self._core.threads.run(
                self._bundles.write_exec, record, one.id, one.body
            )
            started = await self._core.shim.client.exec(
                record.id,
                one.id,
                document=document,
                tty=one.body.tty,
                open_stdin=one.body.attach_stdin,
                size=console_size,
            )
        except (CaisError, OSError) as exc:
            failure, exit_code = exec_failure(exc, one.container)
            self._end(one, exit_code)
            raise failure from exc
        finally:
            self._bundles.forget_exec(record.id, one.id)
        if one.exit_code is None:  # a short one may have ended before this line
            one.pid, one.running = started.pid, True
        one.ready.set()

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Tell the exec's terminal its window size; waits a moment for it to start.

        Raises:
            ExecNotFoundError: no such exec.
            ConflictError: it is not running.

        """
        one = self._find(exec_id)
        started = asyncio.ensure_future(one.ready.wait())
        is_started = await self._core.clock.is_done_within(started, _RESIZE_LIMIT_S)
        started.cancel()
        if not is_started:
            raise ConflictError("timeout waiting for exec session ready")
        try:
            await self._core.shim.client.resize(
                one.container.id, one.id, height=height, width=width
            )
        except NotFoundError as exc:
            raise ConflictError(f"exec {exec_id} is not running") from exc

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """Return the document of ``GET /exec/{id}/json``. Not a coroutine."""
        one = self._find(exec_id)
        entrypoint, *arguments = one.body.cmd or [""]
        return {
            "ID": one.id,
            "Running": one.running,
            "ExitCode": one.exit_code,
            "ProcessConfig": {
                "tty": one.body.tty,
                "entrypoint": entrypoint,
                "arguments": arguments,
                "privileged": one.body.privileged,
                **({"user": one.body.user} if one.body.user else {}),
            },
            "OpenStdin": one.body.attach_stdin,
            "OpenStderr": one.body.attach_stderr,
            "OpenStdout": one.body.attach_stdout,
            "CanRemove": one.exit_code is not None,
            "ContainerID": one.container.id,
            "DetachKeys": one.body.detach_keys,
            "Pid": one.pid,
        }

    def running_in(self, container_id: str) -> list[str]:
        """Return the ids of the execs of a container, for its inspection."""
        return [
            one.id
            for one in self._execs.values()
            if one.container.id == container_id and one.exit_code is None
        ]

    def handle_exit(self, event: ExitEvent) -> None:
        """Record the end of an exec and acknowledge it."""
        one = self._execs.get(event.exec_id or "")
        if one is not None and one.exit_code is None:
            self._end(one, 255 if event.code is None else event.code)
        self._core.shim.acknowledge(event)

    def container_ended(self, container_id: str) -> None:
        """End what no exit event will come for: execs that were not started."""
        for one in tuple(self._execs.values()):
            if one.container.id == container_id and not one.is_started:
                del self._execs[one.id]

    def forget_container(self, container_id: str) -> None:
        """Forget the execs of a container that is no more."""
        for one in tuple(self._execs.values()):
            if one.container.id == container_id:
                one.ready.set()
                del self._execs[one.id]

    def adopt(self, container: Container, status: ContainerStatus, body: ExecBody) -> None:
        """Remember the execs a shim runs since an earlier daemon."""
        for exec_id, pid in status.execs.items():
            one = Exec(exec_id, container, body, is_started=True, running=True, pid=pid)
            one.ready.set()
            self._execs[exec_id] = one

    def new_probe(self, container: Container, body: ExecBody) -> Exec:
        """Return an exec for a health check; it is remembered until ``forget``."""
        one = Exec(new_id(), container, body)
        self._execs[one.id] = one
        self._announce(one, f"exec_create: {one.command}")
        return one

    def forget(self, one: Exec) -> None:
        """Forget an exec."""
        self._execs.pop(one.id, None)

    async def _attach(self, one: Exec) -> AttachSession:
        body = one.body
        sock = await self._core.shim.client.attach(
            one.container.id,
            one.id,
            stdin=body.attach_stdin,
            stdout=body.attach_stdout,
            stderr=body.attach_stderr,
            tty=body.tty,
        )
        return AttachSession(
            tty=body.tty,
            sock=sock,
            detach_keys=one.detach_keys if body.tty and body.attach_stdin else b"",
            on_detach=lambda: self._announce(one, "exec_detach"),
            # The exit may arrive a moment after the last byte; clients ask for it at once.
            on_end=lambda: self._core.clock.is_done_within(one.ended, _EXIT_LIMIT_S),
        )

    def _find(self, exec_id: str) -> Exec:
        one = self._execs.get(exec_id)
        if one is None:
            raise ExecNotFoundError(exec_id)
        return one

    def _end(self, one: Exec, exit_code: int) -> None:
        one.running = False
        one.exit_code = exit_code
        one.ended_s = self._core.clock.monotonic_s()
        one.ready.set()
        if not one.ended.done():
            one.ended.set_result(exit_code)
        self._announce(one, "exec_die", {"exitCode": str(exit_code)})

    def _announce(self, one: Exec, action: str, extra: dict[str, str] | None = None) -> None:
        self._core.announce(one.container, action, {"execID": one.id, **(extra or {})})

    def _forget_old(self) -> None:
        horizon_s = self._core.clock.monotonic_s() - _KEPT_ENDED_S
        for one in tuple(self._execs.values()):
            if one.ended_s is not None and one.ended_s < horizon_s:
                del self._execs[one.id]


def check_ready(container: Container) -> None:
    """Refuse execs in a container that cannot have any now.

    Raises:
        NotRunningError: it does not run.
        ConflictError: it is paused or restarting.

    """
    state = container.record.state
    if not state.running:
        raise NotRunningError(container.id)
    if state.paused:
        raise PausedError(container.id, "exec")
    if state.restarting:
        raise RestartingError(container.id)


def exec_failure(exc: CaisError | OSError, container: Container) -> tuple[Exception, int]:
    """Put Docker's words around why an exec failed; return that and the exec's exit code."""
    if isinstance(exc, OSError):
        return ContainerLaunchError(f"{_START_PREFIX}{exc}"), _FAILED_TO_START
    if isinstance(exc, NotFoundError):
        return NotRunningError(container.id), _FAILED_TO_START
    if not isinstance(exc, LaunchError):
        return exc, _FAILED_TO_START
    if exc.kind == "user":  # looked up by Docker's daemon, not by its runtime
        return ContainerLaunchError(exc.message, _FAILED_TO_START), _FAILED_TO_START
    text = f"{_START_PREFIX}{exc.message}: unknown"
    if exc.kind == "not-found":
        return CommandLaunchError(text, _NOT_FOUND), _NOT_FOUND
    if exc.kind == "not-permitted":
        return CommandLaunchError(text, _FAILED_TO_START), _FAILED_TO_START
    return ContainerLaunchError(text, _FAILED_TO_START), _FAILED_TO_START
