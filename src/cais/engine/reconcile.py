"""Start-up: what the records say, what the shim holds, what the kernel has; make them one.

The shim is right about what runs and how it ended. Records are right about what exists. Whatever
belongs to no record (snapshots, bundles, directories, namespaces, a process) is what a crash left
and goes away, unless the database was damaged: then it may be all that is left of a container, and
stays.

A record that says "running" while the shim has neither the process nor its exit ended unseen:
the machine was restarted, or the shim was killed. In the second case the process may live on; it
is adopted if the same process (number, start time, boot) is still there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cais.engine.errors import NameConflictError
from cais.engine.restart import should_restart
from cais.engine.table import Container
from cais.engine.tidying import tidy
from cais.errors import CaisError, ConflictError, NotFoundError
from cais.shim.values import ExitEvent
from cais.snapshots.snapshotter import Kind
from cais.spec.container import ExecBody

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.engine.core import Core
    from cais.engine.execs import Execs
    from cais.engine.exits import Exits
    from cais.engine.launch import Launcher
    from cais.engine.removal import Remover
    from cais.engine.state import Loaded
    from cais.shim.values import ContainerStatus, OciRuntime, ShimHello

log = logging.getLogger(__name__)

_HEX = frozenset("0123456789abcdef")


class Reconciler:
    """``reconcile`` when the engine opens, ``match`` also when a lost shim was replaced."""

    def __init__(
        self, core: Core, exits: Exits, execs: Execs, launcher: Launcher, remover: Remover
    ) -> None:
        self._core = core
        self._exits = exits
        self._execs = execs
        self._launcher = launcher
        self._remover = remover

    async def fill_table(self, loaded: Loaded) -> None:
        """Put the stored containers into the table, and those a lost database forgot."""
        records = {record.id: record for record in loaded.containers}
        if loaded.is_damaged or loaded.quarantined:
            for record in await self._core.threads.run(self._core.copies.load):
                if record.id not in records:
                    records[record.id] = record
                    self._core.state.put_later(record)
                    log.warning("container %s is rebuilt from its copy", record.id)
        for record in sorted(records.values(), key=lambda one: one.created_at_ns):
            self._add(Container(record))

    async def reconcile(self, hello: ShimHello, *, may_delete: bool = True) -> None:
        """Bring records, shim and kernel together, while nobody else is at work yet.

        Args:
            hello: what the shim holds, and which exits nobody has acknowledged.
            may_delete: remove what belongs to no record.

        """
        await self.match(hello)
        for container in self._core.table:
            await self._thaw(container)
            await self._finish_removal(container)
        await self._reconcile_network()
        if may_delete:
            await self._drop_unfinished()
            await self._end_strangers(hello.containers)
            await self._core.threads.run(self._delete_orphans)
            await self._core.threads.run(self._tidy)

    async def match(self, hello: ShimHello) -> None:
        """Make the records say what the shim says; requests may be under way meanwhile."""
        held = {status.id: status for status in hello.containers if status.pid}
        for container_id in {status.id for status in hello.containers} - held.keys():
            await self._end(container_id)  # the start whose answer nobody waits for never was
        ended = {event.id: event for event in hello.exits if event.exec_id is None}
        for event in hello.exits:
            if event.exec_id is not None:
                self._core.shim.acknowledge(event)
        for container in self._core.table:
            await self._reconcile_one(container, held.get(container.id), ended.get(container.id))
        for event in ended.values():
            if self._core.table.find(event.id) is None:
                self._core.shim.acknowledge(event)
        await self._core.state.settle()

    async def restart_wanted(self) -> None:
        """Start what its restart policy wants started with the daemon, oldest first."""
        for container in sorted(self._core.table, key=lambda one: one.record.created_at_ns):
            record = container.record
            state = record.state
            if state.running or state.removing or not state.started_at_ns:
                continue
            policy = record.restart_policy
            if not should_restart(
                policy.name,
                policy.maximum_retry_count,
                exit_code=state.exit_code,
                restart_count=record.restart_count,
                is_manually_stopped=state.is_manually_stopped,
            ):
                continue
            self._core.background.spawn(self._start(container), f"boot-{container.id[:12]}")

    async def _start(self, container: Container) -> None:
        async with container.lock:
            if container.record.state.running or container.record.state.removing:
                return
            container.exit_on_next = False
            try:
                await self._launcher.launch(container)
            except CaisError as exc:
                log.warning("container %s cannot be started: %s", container.id, exc)

    def _add(self, container: Container) -> None:
        try:
            self._core.table.reserve_name(container.record.name, container.id)
        except NameConflictError:
            container.record.name = f"/{container.id[:12]}"
            self._core.table.reserve_name(container.record.name, container.id)
            self._core.state.put_later(container.record)
        self._core.table.add(container)

    async def _reconcile_one(
        self, container: Container, status: ContainerStatus | None, event: ExitEvent | None
    ) -> None:
        state = container.record.state
        if status is not None:
            self._note_running(container, status)
        elif event is not None and (state.running or not state.started_at_ns):
            state.running, state.restarting = True, False
            state.pid = state.pid or event.pid
            await self._exits.handle(event)
        elif event is not None:
            self._core.shim.acknowledge(event)
        elif state.restarting:
            await self._settle(container)
        elif state.running:
            await self._adopt_or_end(container)

    async def _thaw(self, container: Container) -> None:
        """Let a container go on that a commit had paused when the daemon ended."""
        state = container.record.state
        if not (state.running and state.paused and state.paused_for_commit):
            return
        try:
            await self._core.shim.client.resume(container.id)
        except CaisError as exc:
            log.warning("container %s stays paused: %s", container.id, exc)
            return
        state.paused = False
        self._core.state.put_later(container.record)

    async def _drop_unfinished(self) -> None:
        """Forget containers whose creation was cut off: the row is there, the snapshot is not."""
        present = await self._core.threads.run(self._snapshot_keys)
        for container in self._core.table:
            record = container.record
            if record.id in present or record.state.started_at_ns:
                continue
            log.warning("container %s was never completed: forgetting it", record.id)
            async with container.lock:
                await self._remover.erase(container, volumes=True)

    def _snapshot_keys(self) -> set[str]:
        """Return the containers that have a writable layer. Blocks."""
        return {
            snapshot.key
            for snapshot in self._core.snapshots.walk()
            if snapshot.kind is not Kind.COMMITTED
        }

    def _note_running(self, container: Container, status: ContainerStatus) -> None:
        state = container.record.state
        if not (state.running and state.pid == status.pid):
            state.started_at_ns = status.started_at_ns
        state.running, state.restarting = True, False
        state.paused = status.state == "paused"
        state.pid, state.start_ticks = status.pid, status.start_ticks
        state.boot_id = self._core.boot_id
        self._core.state.put_later(container.record)
        self._execs.adopt(container, status, ExecBody(cmd=[""]))
        self._launcher.probe(container)

    async def _adopt_or_end(self, container: Container) -> None:
        state = container.record.state
        if state.pid and state.boot_id == self._core.boot_id:
            try:
                await self._core.shim.client.adopt(
                    container.id,
                    pid=state.pid,
                    start_ticks=state.start_ticks,
                    bundle=self._core.paths.bundle(container.id),
                    paused=state.paused,
                    runtime=await self._core.threads.run(self._runtime_of, container),
                )
            except NotFoundError:
                log.warning("container %s has ended with its shim", container.id)
            except ConflictError:
                return  # started again under the new shim
            else:
                log.warning("container %s lost its shim: its streams are gone", container.id)
                return
        await self._end_unseen(container)

    def _runtime_of(self, container: Container) -> OciRuntime | None:
        """Return what runs a container; one whose runtime is gone is as good as ours. Blocks."""
        try:
            return self._core.runtimes.find(container.record.host_config.runtime)
        except CaisError as exc:
            log.warning("container %s: %s", container.id, exc)
            return None

    async def _end_unseen(self, container: Container) -> None:
        state = container.record.state
        now_ns = self._core.clock.wall_ns()
        event = ExitEvent(
            exit_seq=0,
            id=container.id,
            exec_id=None,
            pid=state.pid,
            code=None,
            signal=None,
            oom_killed=False,
            exited_at_ns=now_ns,
        )
        await self._exits.handle(event)

    async def _settle(self, container: Container) -> None:
        """A restart was pending when the daemon ended; ``restart_wanted`` takes it up again."""
        async with container.lock:
            if container.record.state.restarting and container.restart_gate is None:
                await self._exits.settle(container)

    async def _finish_removal(self, container: Container) -> None:
        """Remove what was to be removed when the daemon ended, and what auto-remove left."""
        record = container.record
        is_left_over = (
            record.auto_remove and not record.state.running and record.state.finished_at_ns
        )
        if not (record.state.removing or is_left_over) or record.state.running:
            record.state.removing = False
            return
        record.state.removing = True
        async with container.lock:
            await self._remover.erase(container, volumes=record.auto_remove)

    async def _reconcile_network(self) -> None:
        live = {}
        for container in self._core.table:
            record = container.record
            if record.state.running and record.attachment is not None:
                live[container.id] = record.attachment
            else:
                record.attachment = None
        await self._core.threads.run_network(self._core.network.reconcile, live)

    async def _end_strangers(self, held: Iterable[ContainerStatus]) -> None:
        """End processes of containers that were never acknowledged or are removed."""
        for status in held:
            if self._core.table.find(status.id) is None:
                log.warning("ending container %s, which no record knows", status.id)
                await self._end(status.id)

    async def _end(self, container_id: str) -> None:
        try:
            await self._core.shim.client.kill(container_id, 9)
        except CaisError as exc:
            log.warning("container %s: %s", container_id, exc)

    def _directories(self) -> list[str]:
        return [path.name for path in self._core.paths.containers.iterdir() if _is_id(path.name)]

    def _delete_orphans(self) -> None:
        """Delete what belongs to no container. Blocks."""
        known = {container.id for container in self._core.table}
        found = set(filter(_is_id, self._snapshot_keys()))
        found |= set(self._directories())
        found |= {path.name for path in self._core.paths.bundles.iterdir() if _is_id(path.name)}
        for container_id in found - known:
            log.info("removing what is left of container %s", container_id)
            self._remover.delete_files(container_id)
        self._core.copies.match(container.record for container in self._core.table)

    def _tidy(self) -> None:
        """Free what a daemon that was killed had no time to. Blocks."""
        for container in self._core.table:
            if not container.record.state.running:
                tidy(self._core, container.id)


def _is_id(name: str) -> bool:
    return len(name) == 64 and _HEX.issuperset(name)
