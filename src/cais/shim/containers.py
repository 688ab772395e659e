"""The containers of one data root: every request but the connection's own, and every exit.

    attach* ──▶ start ──▶ exec* / pause / kill / ... ──▶ exit event ──▶ ack

An exit is told to whoever is connected and kept until it is acknowledged.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import time

from cais.errors import (
    CaisError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    UnsupportedError,
)
from cais.shim.attachment import Attachment
from cais.shim.foreign import ForeignRuntimes
from cais.shim.last_hooks import LastHooks
from cais.shim.logs import ContainerLog
from cais.shim.oom import OomWatch
from cais.shim.processes import Process
from cais.shim.stdio import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cais.runtime.launch import Running, Stdio
    from cais.shim.contracts import Launch, Pending, Reply, Runtime
    from cais.shim.fields import Fields
    from cais.shim.loop import Loop
    from cais.shim.processes import Exit
    from cais.shim.protocol import Document
    from cais.spec.runtime import Resources

    Key = tuple[str, str | None]


class Container:
    """A container from its start to its exit."""

    __slots__ = ("bundle", "id", "is_paused", "oom_watch", "process", "runtime")

    def __init__(self, id_: str, bundle: str, process: Process, runtime: Runtime) -> None:
        self.id = id_
        self.bundle = bundle
        self.process = process
        self.runtime = runtime
        self.is_paused = False
        self.oom_watch: OomWatch | None = None

    @property
    def state(self) -> str:
        """As ``hello`` tells it."""
        if not self.process.is_running:
            return "starting"
        return "paused" if self.is_paused else "running"


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
    ) -> None:
        """``tell`` sends an event to every connection; ``report`` logs a fault of ours."""
        self._loop = loop
        self._runtime = runtime
        self._foreign = ForeignRuntimes(loop, report)
        self._last_hooks = LastHooks(loop, report)
        self._tell = tell
        self._report = report
        self._spill_directory = spill_directory
        self._containers: dict[str, Container] = {}
        self._execs: dict[Key, Process] = {}
        self._waiting: dict[Key, list[Attachment]] = {}
        self._exits: dict[int, Document] = {}
        self._last_exit_seq = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no container, running or starting, and none is being deleted."""
        busy = self._foreign.is_busy or self._last_hooks.is_busy
        return not (self._containers or self._execs or busy)

    @property
    def exits(self) -> list[Document]:
        """The exits nobody has acknowledged, oldest first."""
        return list(self._exits.values())

    @property
    def known_pids(self) -> set[int] | None:
        """The children that are reaped here or by the runtime.

        None while another runtime makes processes, whose numbers are not known yet.
        """
        if self._foreign.is_busy:
            return None
        pids: set[int] = set()
        for process in self._processes():
            pids |= process.known_pids
        return pids

    def statuses(self) -> list[Document]:
        """Return what is held here, a document per container."""
        return [self._status(container) for container in self._containers.values()]

    def start(self, fields: Fields, reply: Reply) -> None:
        """Start a container; answer once its program has been executed."""
        id_, bundle, tty = fields.id(), fields.path("bundle"), fields.flag("tty")
        open_stdin, size = fields.flag("open_stdin"), fields.size("size")
        close_on_end = fields.flag("stdin_once") and not tty
        checkpoint = fields.optional_path("checkpoint")
        if id_ in self._containers or self._last_hooks.has(id_):
            raise ConflictError(f"container {id_} is already running")
        runtime = self._runtime_of(fields)
        log = _open_log(fields.nested("log"))
        streams = self._new_streams(log, close_on_end=close_on_end)
        process = Process(self._loop, streams, tty=tty, on_exit=lambda how: self._exited(id_, how))

        def started(running: Running) -> None:
            _answer(reply, process, running)
            self._watch_memory(self._containers[id_])

        def failed(error: BaseException) -> None:
            del self._containers[id_]
            streams.finish()
            self._last_hooks.then(runtime, id_, bundle, lambda: reply.fail(error))

        def begin(stdio: Stdio | None) -> Launch:
            if checkpoint is not None:
                return runtime.begin_restore(id_, bundle, checkpoint, stdio=stdio, size=size)
            return runtime.begin(id_, bundle, stdio=stdio, size=size)

        self._launch((id_, None), process, begin, started, failed, open_stdin=open_stdin)
        self._containers[id_] = Container(id_, bundle, process, runtime)

    def exec(self, fields: Fields, reply: Reply) -> None:
        """Run one more process in a container; answer once its program has been executed."""
        id_, exec_id, document = fields.id(), fields.id("exec_id"), fields.path("document")
        tty, open_stdin, size = fields.flag("tty"), fields.flag("open_stdin"), fields.size("size")
        container = self._get_running(id_)
        key = (id_, exec_id)
        if container.is_paused:
            raise ConflictError(f"container {id_} is paused, unpause the container before exec")
        if key in self._execs:
            raise ConflictError(f"exec {exec_id} is already running")
        streams = self._new_streams(None, close_on_end=not tty)
        process = Process(
            self._loop, streams, tty=tty, on_exit=lambda how: self._exec_exited(key, how)
        )

        def started(running: Running) -> None:
            _answer(reply, process, running)

        def failed(error: BaseException) -> None:
            del self._execs[key]
            streams.finish()
            reply.fail(error)

        def begin(stdio: Stdio | None) -> Launch:
            bundle, init_pidfd = container.bundle, container.process.pidfd
            return container.runtime.begin_exec(
                id_, bundle, document, init_pidfd, stdio=stdio, size=size
            )

        self._launch(key, process, begin, started, failed, open_stdin=open_stdin)
        self._execs[key] = process

    def attach(self, fields: Fields, channel: socket.socket) -> None:
        """Attach the client behind ``channel``, owned from now on, also before the start."""
        key = fields.id(), fields.optional_id("exec_id")
        wanted = {name for name in ("stdout", "stderr") if fields.flag(name)}
        stdin, tty = fields.flag("stdin"), fields.flag("tty")
        mode = os.fstat(channel.fileno()).st_mode
        if not stat.S_ISSOCK(mode) or channel.type != socket.SOCK_STREAM:
            raise InvalidArgumentError("attach: the descriptor must be a stream socket")
        client = Attachment(self._loop, channel, streams=frozenset(wanted), stdin=stdin, tty=tty)
        process = self._find_process(key)
        if process is not None:
            process.streams.attach(client)
        elif self._has_untold_exit(key):
            client.close()  # the engine still takes it for running; it will not start again yet
        else:
            self._forget_closed()
            self._waiting.setdefault(key, []).append(client)

    def detach(self, fields: Fields) -> None:
        """Close the attachments made before a start that will not happen."""
        self._close_waiting((fields.id(), fields.optional_id("exec_id")))

    def resize(self, fields: Fields) -> None:
        """Set the size of a terminal."""
        process = self._get_process(fields)
        height, width = fields.number("height", 0, 0xFFFF), fields.number("width", 0, 0xFFFF)
        if not process.streams.resize(height, width):
            raise ConflictError("the process has no terminal")

    def kill(self, fields: Fields, reply: Reply) -> None:
        """Signal a container, an exec, or everything in a container."""
        number = fields.number("signal", 1, signal.SIGRTMAX)
        exec_id = fields.optional_id("exec_id")
        if exec_id is not None:
            self._get_process(fields).send_signal(number)
            reply.ok()
            return
        container = self._get(fields.id())
        pending: Pending | None = None
        if not container.process.is_running:
            self._kill_starting(container, number)
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
        container = self._get_running(fields.id())
        if container.is_paused:
            raise ConflictError(f"container {container.id} is already paused")

        def paused() -> None:
            container.is_paused = True
            reply.ok()

        _conclude(container.runtime.pause(container.id, container.bundle), paused, reply)

    def resume(self, fields: Fields, reply: Reply) -> None:
        """Thaw a container."""
        container = self._get_running(fields.id())
        if not container.is_paused:
            raise ConflictError(f"container {container.id} is not paused")

        def resumed() -> None:
            container.is_paused = False
            reply.ok()

        _conclude(container.runtime.resume(container.id, container.bundle), resumed, reply)

    def update(self, fields: Fields, reply: Reply) -> None:
        """Change limits."""
        container = self._get_running(fields.id())
        resources: Resources = fields.document("resources")  # type: ignore[assignment] # it checks
        pending = container.runtime.update(container.id, container.bundle, resources)
        _conclude(pending, reply.ok, reply)

    def checkpoint(self, fields: Fields, reply: Reply) -> None:
        """Write a container's processes into a directory."""
        container = self._get_running(fields.id())
        directory, leave_running = fields.path("directory"), fields.flag("leave_running")
        pending = container.runtime.checkpoint(
            container.id, container.bundle, directory, leave_running=leave_running
        )
        _conclude(pending, reply.ok, reply)

    def ack(self, fields: Fields) -> None:
        """Forget exits that have been recorded."""
        for exit_seq in fields.numbers("exits"):
            self._exits.pop(exit_seq, None)

    def adopt(self, fields: Fields) -> None:
        """Watch a container whose shim died. Its streams died with that shim."""
        id_, bundle = fields.id(), fields.path("bundle")
        pid, ticks = fields.number("pid", 2), fields.number("start_ticks")
        paused, runtime = fields.flag("paused"), self._runtime_of(fields)
        if id_ in self._containers:
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
        container = self._containers[id_] = Container(id_, bundle, process, runtime)
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
            self._close_waiting(key)
            process.streams.finish()
            raise
        for client in self._waiting.pop(key, ()):
            if not client.is_closed:
                process.streams.attach(client)

    def _watch_memory(self, container: Container) -> None:
        def killed() -> None:
            self._tell({"event": "oom", "id": container.id, "at_ns": time.time_ns()})

        try:
            group = container.runtime.cgroup_of(container.id, container.bundle)
            container.oom_watch = OomWatch(self._loop, group, killed)
        except (OSError, CaisError) as exc:
            self._report(exc)  # the container runs; that one was killed is told with its exit

    def _exited(self, id_: str, how: Exit) -> None:
        container = self._containers.pop(id_)
        oom_killed = False
        try:
            if container.oom_watch is not None:
                container.oom_watch.close()
            oom_killed = container.runtime.destroy(id_, container.bundle)
        except Exception as exc:  # noqa: BLE001 - the exit must be told whatever is left behind
            self._report(exc)

        def tell() -> None:
            self._tell_exit((id_, None), container.process, how, oom_killed=oom_killed)

        self._last_hooks.then(container.runtime, id_, container.bundle, tell)

    def _exec_exited(self, key: Key, how: Exit) -> None:
        self._tell_exit(key, self._execs.pop(key), how, oom_killed=False)

    def _tell_exit(self, key: Key, process: Process, how: Exit, *, oom_killed: bool) -> None:
        self._last_exit_seq += 1
        document = self._exits[self._last_exit_seq] = {
            "exit_seq": self._last_exit_seq,
            "id": key[0],
            "exec_id": key[1],
            "pid": process.pid,
            "code": how.code,
            "signal": how.signal,
            "oom_killed": oom_killed,
            "exited_at_ns": time.time_ns(),
            "log_dropped": process.streams.log_dropped,
        }
        self._tell({"event": "exit", **document})

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
                for (id_, exec_id), each in self._execs.items()
                if id_ == container.id and exec_id is not None and each.is_running
            },
            "log_dropped": process.streams.log_dropped,
            "adopted": process.adopted,
        }

    def _runtime_of(self, fields: Fields) -> Runtime:
        """Return the runtime a request names: none is ours."""
        named = fields.nested("runtime")
        return self._runtime if named is None else self._foreign.runtime(named)

    def _kill_starting(self, container: Container, number: int) -> None:
        if number != signal.SIGKILL:
            raise ConflictError(f"container {container.id} is still starting")
        container.process.abort()

    def _new_streams(self, log: ContainerLog | None, *, close_on_end: bool) -> Streams:
        return Streams(
            self._loop, log=log, close_on_end=close_on_end, spill_directory=self._spill_directory
        )

    def _has_untold_exit(self, key: Key) -> bool:
        return any((each["id"], each["exec_id"]) == key for each in self._exits.values())

    def _forget_closed(self) -> None:
        """Drop clients that went away before a start that never came."""
        for key, clients in list(self._waiting.items()):
            clients[:] = [client for client in clients if not client.is_closed]
            if not clients:
                del self._waiting[key]

    def _close_waiting(self, key: Key) -> None:
        for client in self._waiting.pop(key, ()):
            client.close()

    def _processes(self) -> Iterator[Process]:
        for container in self._containers.values():
            yield container.process
        yield from self._execs.values()

    def _find_process(self, key: Key) -> Process | None:
        if key[1] is not None:
            return self._execs.get(key)
        container = self._containers.get(key[0])
        return None if container is None else container.process

    def _get_process(self, fields: Fields) -> Process:
        key = fields.id(), fields.optional_id("exec_id")
        process = self._find_process(key)
        if process is None:
            name = f"container {key[0]}" if key[1] is None else f"exec {key[1]}"
            raise NotFoundError(f"{name} is not running")
        return process

    def _get(self, id_: str) -> Container:
        container = self._containers.get(id_)
        if container is None:
            raise NotFoundError(f"container {id_} is not running")
        return container

    def _get_running(self, id_: str) -> Container:
        container = self._get(id_)
        if not container.process.is_running:
            raise ConflictError(f"container {id_} is still starting")
        return container


def _open_log(fields: Fields | None) -> ContainerLog | None:
    if fields is None:
        return None
    return ContainerLog(
        fields.path("path"),
        max_size=fields.optional_number("max_size", 1),
        max_file=fields.number("max_file", 1),
        attrs=fields.texts("attrs"),
    )


def _conclude(pending: Pending | None, done: Callable[[], None], reply: Reply) -> None:
    """Call ``done`` when a change is over, which it is unless it is pending."""
    if pending is None:
        done()
    else:
        pending.then(done, reply.fail)


def _answer(reply: Reply, process: Process, running: Running) -> None:
    reply.ok(
        pid=running.pid,
        started_at_ns=process.started_at_ns,
        start_ticks=running.start_ticks,
        warnings=list(running.warnings),
    )
