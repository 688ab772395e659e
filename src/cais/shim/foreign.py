"""Containers of other OCI runtimes (runc, crun, ...): their commands instead of our functions.

The runtime makes the processes; the shim, a subreaper, inherits them and then treats them as its
own: streams, terminal, exit code. What a command does takes milliseconds, so nothing here waits
for one. Killing for good and counting out-of-memory kills go through the control group, which the
document names.

    <root>/state/<id>...   the runtime's own (--root)
    <root>/commands/<n>/   cais.shim.foreign_desk
"""

from __future__ import annotations

import json
import os
from signal import SIGKILL, pidfd_send_signal

from cais.errors import CaisError, ConflictError, NotFoundError
from cais.linux.namespaces import CLONE_NEWNS
from cais.runtime import groups
from cais.shim.foreign_changes import Commands
from cais.shim.foreign_child import Bundle, ExecDocument
from cais.shim.foreign_launch import Adopted, Ending, ForeignLaunch, KeptStreams
from cais.shim.foreign_program import CHECKPOINT_S, ForeignProgram
from cais.spec.runtime import validate_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.cgroups import Cgroup
    from cais.runtime.launch import Stdio
    from cais.shim.fields import Fields
    from cais.shim.foreign_changes import ForeignChange
    from cais.shim.foreign_desk import Desk
    from cais.shim.foreign_launch import Steps, Waits
    from cais.spec.runtime import Resources


class ForeignRuntimes(Commands):
    """The other runtimes of one shim."""

    def runtime(self, fields: Fields) -> ForeignRuntime:
        """Return the runtime a request names."""
        arguments = fields.strings("args")
        program = ForeignProgram(self, fields.path("path"), arguments, fields.path("root"))
        return ForeignRuntime(program)


class ForeignRuntime:
    """One runtime as somebody configured it; see ``contracts.Runtime`` for each method."""

    def __init__(self, program: ForeignProgram) -> None:
        self._program = program
        self._shared = program.shared

    def begin(
        self,
        container_id: str,
        bundle: str,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> ForeignLaunch:
        """Start a container."""
        os.makedirs(self._program.state, 0o700, exist_ok=True)
        documents = Bundle(bundle)
        return ForeignLaunch(self._start(container_id, documents, stdio, size))

    def begin_exec(
        self,
        container_id: str,
        bundle: str,
        document: str,
        init_pidfd: int,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> ForeignLaunch:
        """Start one more process in it."""
        del bundle
        init_pid = _pid_of(init_pidfd)
        if init_pid <= 0:
            raise ConflictError(f"container {container_id} is not running")
        wanted = ExecDocument(document, init_pid)
        return ForeignLaunch(self._exec(container_id, wanted, stdio, size))

    def begin_restore(
        self,
        container_id: str,
        bundle: str,
        checkpoint: str,
        *,
        stdio: Stdio | None,
        size: tuple[int, int] | None = None,
    ) -> ForeignLaunch:
        """Start a container from a checkpoint."""
        os.makedirs(self._program.state, 0o700, exist_ok=True)
        documents = Bundle(bundle)
        return ForeignLaunch(self._start(container_id, documents, stdio, size, checkpoint))

    def checkpoint(
        self,
        container_id: str,
        bundle: str,
        init_pidfd: int,
        directory: str,
        *,
        leave_running: bool,
    ) -> ForeignChange:
        """Write its processes into ``directory``."""
        del bundle, init_pidfd
        stay = ["--leave-running"] if leave_running else []
        words = ["checkpoint", "--image-path", directory, "--work-path", directory, *stay]
        desk = self._program.open_desk()
        return self._program.change([*words, container_id], desk, patience_s=CHECKPOINT_S)

    def kill(
        self, container_id: str, bundle: str, init_pidfd: int, number: int
    ) -> ForeignChange | None:
        """Signal the first process: by the runtime, which may be more than a process's parent."""
        del bundle
        if number == SIGKILL:
            _kill(container_id, init_pidfd)
            return None
        desk = self._program.open_desk()
        return self._program.change(["kill", container_id, str(number)], desk, os.dup(init_pidfd))

    def kill_all(self, container_id: str, bundle: str) -> None:
        """Kill all its processes."""
        groups.group_of(container_id, bundle).kill_all()

    def pause(self, container_id: str, bundle: str) -> ForeignChange:
        """Freeze it."""
        del bundle
        return self._program.change(["pause", container_id], self._program.open_desk())

    def resume(self, container_id: str, bundle: str) -> ForeignChange:
        """Thaw it."""
        del bundle
        return self._program.change(["resume", container_id], self._program.open_desk())

    def update(self, container_id: str, bundle: str, resources: Resources) -> ForeignChange:
        """Change its limits."""
        del bundle
        text = json.dumps(validate_resources(resources))
        desk = self._program.open_desk()
        path = desk.file("resources")
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            desk.clear()
            raise
        return self._program.change(["update", "--resources", path, container_id], desk)

    def destroy(self, container_id: str, bundle: str) -> bool:
        """Kill what is left of it; the runtime forgets it in the background."""
        group = groups.group_of(container_id, bundle)
        oom_killed = group.exists() and group.oom_kills() > 0
        group.kill_all()
        groups.forget(container_id)
        self._delete(container_id, group)
        return oom_killed

    def begin_poststop(self, container_id: str, directory: str) -> None:
        """Nothing: the runtime's ``delete`` has run them."""
        del container_id, directory

    def cgroup_of(self, container_id: str, bundle: str) -> Cgroup:
        """Return its control group."""
        return groups.group_of(container_id, bundle)

    def _start(
        self,
        id_: str,
        documents: Bundle,
        stdio: Stdio | None,
        size: tuple[int, int] | None,
        checkpoint: str | None = None,
    ) -> Steps:
        adopted: Adopted | None = None
        kept = KeptStreams(stdio)
        try:
            yield from self._wait_deleted(id_)
            with self._program.open_desk() as desk:
                verb = ["create"]
                if checkpoint is not None:
                    verb = ["restore", "--detach", "--image-path", checkpoint]
                    verb += ["--work-path", checkpoint]
                words = [*verb, "--bundle", documents.path, *_results(desk, stdio), id_]
                yield self._program.spawn(words, desk, kept, documents.complete, flags=CLONE_NEWNS)
                adopted = Adopted(desk, has_terminal=stdio is None, size=size)
            if checkpoint is None:
                with self._program.open_desk() as desk:
                    yield self._program.spawn(["start", id_], desk)
            return adopted.hand_over()
        except BaseException:
            kept.close()
            if adopted is not None:
                adopted.give_up()
            self._delete(id_, groups.group_of(id_, documents.path))
            groups.forget(id_)
            raise

    def _exec(
        self, id_: str, wanted: ExecDocument, stdio: Stdio | None, size: tuple[int, int] | None
    ) -> Steps:
        with self._program.open_desk() as desk:
            wanted.path = desk.file("process")
            words = ["exec", "--detach", "--process", wanted.path, *_results(desk, stdio), id_]
            yield self._program.spawn(words, desk, KeptStreams(stdio), wanted.complete)
            return Adopted(desk, has_terminal=stdio is None, size=size).hand_over()

    def _wait_deleted(self, id_: str) -> Waits:
        """Let the deletion of an earlier run end; one that was never begun is made good."""
        if self._has_state(id_):
            self._delete(id_, None)
        if id_ in self._shared.deletions:
            yield Ending(self._shared.deletions[id_])

    def _has_state(self, id_: str) -> bool:
        return any(name.startswith(id_) for name in os.listdir(self._program.state))

    def _delete(self, id_: str, group: Cgroup | None) -> None:
        """Have the runtime forget a container and kill what it still has, in the background."""
        if id_ in self._shared.deletions:
            return

        def done() -> None:
            ended_fd = self._shared.deletions.pop(id_)
            try:
                if group is not None:
                    group.remove()
            finally:
                os.eventfd_write(ended_fd, 1)
                os.close(ended_fd)

        def failed(error: BaseException) -> None:
            self._shared.report(error)
            done()

        try:
            change = self._program.change(["delete", "--force", id_], self._program.open_desk())
        except (CaisError, OSError) as exc:
            self._shared.report(exc)  # the next start finds what is left, and tries again
            return
        self._shared.deletions[id_] = os.eventfd(0, os.EFD_CLOEXEC)
        change.then(done, failed)


def _results(desk: Desk, stdio: Stdio | None) -> list[str]:
    """Return the flags that say where a runtime leaves the process it makes, and its terminal."""
    console = [] if stdio is not None else ["--console-socket", desk.listen()]
    return ["--pid-file", desk.file("pid"), *console]


def _kill(container_id: str, init_pidfd: int) -> None:
    try:
        pidfd_send_signal(init_pidfd, SIGKILL)
    except ProcessLookupError as error:
        raise NotFoundError(f"container {container_id} is not running") from error


def _pid_of(pidfd: int) -> int:
    """Return the number of the process behind a pidfd, at most 0 when it has been reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("Pid:")).split()[1])
