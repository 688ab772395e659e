"""The containers of one data root: every request but the connection's own, and every exit.

    attach* ──▶ start ──▶ exec* / changes ──▶ exit event ──▶ ack

An exit is told to whoever is connected and kept until it is acknowledged.
"""

from __future__ import annotations

import os
import socket
import stat
import time

from cais.errors import CaisError, ConflictError, InvalidArgumentError, NotFoundError
from cais.shim.attachment import Attachment
from cais.shim.changes import Changes
from cais.shim.exits import Exits
from cais.shim.foreign import ForeignRuntimes
from cais.shim.last_hooks import LastHooks
from cais.shim.logs import ContainerLog
from cais.shim.oom import OomWatch
from cais.shim.own_checkpoints import OwnCheckpoints
from cais.shim.processes import Process
from cais.shim.register import Container, Register
from cais.shim.stdio import Streams
from cais.shim.waiting import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.runtime.launch import Running, Stdio
    from cais.shim.contracts import Checkpoints, Launch, Reply, Runtime
    from cais.shim.fields import Fields
    from cais.shim.loop import Loop
    from cais.shim.processes import Exit
    from cais.shim.protocol import Document
    from cais.shim.register import Key


class Containers:
    """See the module. Methods named after a request take its fields."""

    def __init__(
        self,
        loop: Loop,
        runtime: Runtime,
        *,
        tell: Callable[[Document], None],
        report: Callable[[BaseException], None],
        spill_directory: str,
        command_directory: str,
    ) -> None:
        """Begin with none.

        Args:
            loop: of the shim.
            runtime: ours.
            tell: sends an event to every connection.
            report: logs a fault of ours.
            spill_directory: for output that a slow client has not read.
            command_directory: for what the commands of our own runtime need.

        """
        self._loop = loop
        self._runtime = runtime
        self._foreign = ForeignRuntimes(loop, report)
        self._own_checkpoints = OwnCheckpoints(self._foreign, command_directory)
        self._last_hooks = LastHooks(loop, report)
        self._tell = tell
        self._report = report
        self._spill_directory = spill_directory
        self._register = Register()
        self._waiting = Waiting()
        self._exits = Exits(tell)
        self.changes = Changes(self._register)
        self.on_launch: Callable[[], None] = lambda: None  # a start or an exec is under way

    @property
    def is_empty(self) -> bool:
        """Whether there is no container, running or starting, and none is being deleted."""
        busy = self._foreign.is_busy or self._last_hooks.is_busy
        return self._register.is_empty and not busy

    @property
    def exits(self) -> list[Document]:
        """The exits nobody has acknowledged, oldest first."""
        return self._exits.kept()

    @property
    def known_pids(self) -> set[int] | None:
        """The children that are reaped here or by the runtime.

        None while another runtime makes processes, whose numbers are not known yet.
        """
        if self._foreign.is_busy:
            return None
        pids: set[int] = set()
        for process in self._register.processes():
            pids |= process.known_pids
        return pids

    def look_at_launches(self) -> None:
        """Give up those whose process has ended without a word; a child of ours has."""
        for process in list(self._register.processes()):
            process.look()

    def statuses(self) -> list[Document]:
        """Return what is held here, a document per container."""
        return self._register.statuses()

    def start(self, fields: Fields, reply: Reply) -> None:
        """Start a container; answer once its program has been executed."""
        id_, bundle, tty = fields.id(), fields.path("bundle"), fields.flag("tty")
        open_stdin, size = fields.flag("open_stdin"), fields.size("size")
        close_on_end = fields.flag("stdin_once") and not tty
        checkpoint = fields.optional_path("checkpoint")
        if id_ in self._register.containers or self._last_hooks.has(id_):
            raise ConflictError(f"container {id_} is already running")
        runtime, checkpoints = self._runtime_of(fields)
        log = _open_log(fields.nested("log"))
        streams = self._new_streams(log, close_on_end=close_on_end)
        process = Process(self._loop, streams, tty=tty, on_exit=lambda how: self._exited(id_, how))

        def started(running: Running) -> None:
            _answer(reply, process, running)
            self._watch_memory(self._register.containers[id_])

        def failed(error: BaseException) -> None:
            del self._register.containers[id_]
            streams.finish()
            self._last_hooks.then(runtime, id_, bundle, lambda: reply.fail(error))

        def begin(stdio: Stdio | None) -> Launch:
            if checkpoint is not None:
                return checkpoints.begin_restore(id_, bundle, checkpoint, stdio=stdio, size=size)
            return runtime.begin(id_, bundle, stdio=stdio, size=size)

        self._launch((id_, None), process, begin, started, failed, open_stdin=open_stdin)
        self._register.containers[id_] = Container(id_, bundle, process, runtime, checkpoints)

    def exec(self, fields: Fields, reply: Reply) -> None:
        """Run one more process in a container; answer once its program has been executed."""
        id_, exec_id, document = fields.id(), fields.id("exec_id"), fields.path("document")
        tty, open_stdin, size = fields.flag("tty"), fields.flag("open_stdin"), fields.size("size")
        container = self._register.get_running(id_)
        key = (id_, exec_id)
        if container.is_paused:
            raise ConflictError(f"container {id_} is paused, unpause the container before exec")
        if key in self._register.execs:
            raise ConflictError(f"exec {exec_id} is already running")
        streams = self._new_streams(None, close_on_end=not tty)
        process = Process(
            self._loop, streams, tty=tty, on_exit=lambda how: self._exec_exited(key, how)
        )

        def started(running: Running) -> None:
            _answer(reply, process, running)

        def failed(error: BaseException) -> None:
            del self._register.execs[key]
            streams.finish()
            reply.fail(error)

        def begin(stdio: Stdio | None) -> Launch:
            bundle, init_pidfd = container.bundle, container.process.pidfd
            return container.runtime.begin_exec(
                id_, bundle, document, init_pidfd, stdio=stdio, size=size
            )

        self._launch(key, process, begin, started, failed, open_stdin=open_stdin)
        self._register.execs[key] = process

    def attach(self, fields: Fields, channel: socket.socket) -> None:
        """Attach the client behind ``channel``, owned from now on, also before the start."""
        key = fields.id(), fields.optional_id("exec_id")
        wanted = {name for name in ("stdout", "stderr") if fields.flag(name)}
        stdin, tty = fields.flag("stdin"), fields.flag("tty")
        mode = os.fstat(channel.fileno()).st_mode
        if not stat.S_ISSOCK(mode) or channel.type != socket.SOCK_STREAM:
            raise InvalidArgumentError("attach: the descriptor must be a stream socket")
        client = Attachment(self._loop, channel, streams=frozenset(wanted), stdin=stdin, tty=tty)
        process = self._register.find_process(key)
        if process is not None:
            process.streams.attach(client)
        elif self._exits.has(key):
            client.close()  # the engine still takes it for running; it will not start again yet
        else:
            self._waiting.add(key, client)

    def detach(self, fields: Fields) -> None:
        """Close the attachments made before a start that will not happen."""
        self._waiting.close((fields.id(), fields.optional_id("exec_id")))

    def ack(self, fields: Fields) -> None:
        """Forget exits that have been recorded."""
        self._exits.forget(fields.numbers("exits"))

    def adopt(self, fields: Fields) -> None:
        """Watch a container whose shim died. Its streams died with that shim."""
        id_, bundle = fields.id(), fields.path("bundle")
        pid, ticks = fields.number("pid", 2), fields.number("start_ticks")
        paused = fields.flag("paused")
        runtime, checkpoints = self._runtime_of(fields)
        if id_ in self._register.containers:
            raise ConflictError(f"container {id_} is already running")
        streams = self._new_streams(None, close_on_end=False)
        process = Process(
            self._loop, streams, tty=False, on_exit=lambda how: self._exited(id_, how)
        )
        try:
            process.adopt(pid, ticks)
        except NotFoundError:
            runtime.destroy(id_, bundle)  # nobody was there to do it when it ended
            raise
        container = Container(id_, bundle, process, runtime, checkpoints)
        self._register.containers[id_] = container
        container.is_paused = paused
        self._watch_memory(container)

    def _launch(
        self,
        key: Key,
        process: Process,
        begin: Callable[[Stdio | None], Launch],
        started: Callable[[Running], None],
        failed: Callable[[BaseException], None],
        *,
        open_stdin: bool,
    ) -> None:
        try:
            process.start(begin, open_stdin=open_stdin, started=started, failed=failed)
        except BaseException:
            self._waiting.close(key)
            process.streams.finish()
            raise
        self._waiting.join(key, process.streams)
        self.on_launch()

    def _watch_memory(self, container: Container) -> None:
        def killed() -> None:
            self._tell({"event": "oom", "id": container.id, "at_ns": time.time_ns()})

        try:
            group = container.runtime.cgroup_of(container.id, container.bundle)
            container.oom_watch = OomWatch(self._loop, group, killed)
        except (OSError, CaisError) as exc:
            self._report(exc)  # the container runs; that one was killed is told with its exit

    def _exited(self, id_: str, how: Exit) -> None:
        container = self._register.containers.pop(id_)
        oom_killed = False
        try:
            if container.oom_watch is not None:
                container.oom_watch.close()
            oom_killed = container.runtime.destroy(id_, container.bundle)
        except Exception as exc:  # noqa: BLE001 - the exit must be told whatever is left behind
            self._report(exc)

        def tell() -> None:
            self._exits.add((id_, None), container.process, how, oom_killed=oom_killed)

        self._last_hooks.then(container.runtime, id_, container.bundle, tell)

    def _exec_exited(self, key: Key, how: Exit) -> None:
        self._exits.add(key, self._register.execs.pop(key), how, oom_killed=False)

    def _runtime_of(self, fields: Fields) -> tuple[Runtime, Checkpoints]:
        """Return the runtime a request names, and what makes its checkpoints: none is ours."""
        named = fields.nested("runtime")
        if named is None:
            return self._runtime, self._own_checkpoints
        foreign = self._foreign.runtime(named)
        return foreign, foreign

    def _new_streams(self, log: ContainerLog | None, *, close_on_end: bool) -> Streams:
        return Streams(
            self._loop, log=log, close_on_end=close_on_end, spill_directory=self._spill_directory
        )


def _open_log(fields: Fields | None) -> ContainerLog | None:
    if fields is None:
        return None
    return ContainerLog(
        fields.path("path"),
        max_size=fields.optional_number("max_size", 1),
        max_file=fields.number("max_file", 1),
        attrs=fields.texts("attrs"),
    )


def _answer(reply: Reply, process: Process, running: Running) -> None:
    reply.ok(
        pid=running.pid,
        started_at_ns=process.started_at_ns,
        start_ticks=running.start_ticks,
        warnings=list(running.warnings),
    )
