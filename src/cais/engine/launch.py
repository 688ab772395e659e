"""Starting a container's process: network, bundle, shim; and letting go of it afterwards."""

from __future__ import annotations

import contextlib
import errno
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cais.engine.errors import CommandLaunchError, ContainerLaunchError
from cais.engine.health import HealthMonitor, has_health_check
from cais.engine.records import HealthRecord
from cais.engine.tidying import tidy
from cais.engine.user_namespaces import users_of
from cais.errors import CaisError, ConflictError, UnavailableError
from cais.network.errors import NoReadyNamespaceError
from cais.runtime.launch import LaunchError

if TYPE_CHECKING:
    from pathlib import Path

    from cais.engine.bundle import BundleWriter
    from cais.engine.core import Core
    from cais.engine.execs import Execs
    from cais.engine.namespaces import NamespaceStock
    from cais.engine.records import ContainerRecord
    from cais.engine.table import Container
    from cais.network.endpoint import Attachment
    from cais.shim.values import Started

log = logging.getLogger(__name__)

UNKNOWN_FAILURE = 128
_CREATE_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to start container process: "
)


class Launcher:
    """Brings a container's process to life. Callers hold the container's lock."""

    def __init__(
        self, core: Core, bundles: BundleWriter, stock: NamespaceStock, execs: Execs
    ) -> None:
        self._core = core
        self._bundles = bundles
        self._stock = stock
        self._execs = execs

    async def launch(self, container: Container, checkpoint: Path | None = None) -> None:
        """Start the process and record it; durable when this returns.

        From ``checkpoint``, a directory, if there is one.

        After a failure nothing runs, the network is given back, and the record holds the error.

        Raises:
            CommandLaunchError: the user's command is to blame.
            CaisError: anything else.

        """
        try:
            started = await self._launch(container, checkpoint)
        except (CaisError, OSError) as exc:
            failure, exit_code = launch_failure(exc)
            await self._note_failure(container, str(failure), exit_code)
            raise failure from exc
        self._note_start(container, started)
        await self._core.state.put(container.record)
        self._core.announce(container, "start")
        self.probe(container)

    def release(self, container: Container) -> None:
        """Give back what a run had, in the background; idempotent, and a next start waits."""
        self.stop_probing(container)
        container.run_started_s = None
        container.tell_run_ended()
        attachment, container.record.attachment = container.record.attachment, None
        self._execs.container_ended(container.id)
        if attachment is None:
            return
        self._announce_network(container, attachment, "disconnect")
        container.cleanup = self._core.background.spawn_cleanup(
            self._give_back(container.record), f"release-{container.id[:12]}"
        )

    def probe(self, container: Container) -> None:
        """Run the health checks of a container that runs, and only then."""
        state = container.record.state
        is_wanted = state.running and not (state.paused or state.restarting)
        if not is_wanted:
            self.stop_probing(container)
        elif container.health is None and has_health_check(container.record.config):
            container.health = HealthMonitor(self._core, self._execs, container)

    def stop_probing(self, container: Container) -> None:
        """End the health checks; idempotent."""
        if container.health is not None:
            container.health.close()
            container.health = None

    async def _launch(self, container: Container, checkpoint: Path | None) -> Started:
        record = container.record
        if container.cleanup is not None:
            await container.cleanup
            container.cleanup = None
        joined = self._joined_attachment(container)
        record.attachment = await self._attach_network(container, joined)
        record.network_id = record.attachment.network_id or ""
        bundle = await self._core.threads.run(self._bundles.write, record)
        self._announce_network(container, record.attachment, "connect")
        return await self._core.shim.client.start(
            record.id,
            bundle=bundle.path,
            tty=record.tty,
            open_stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            log=self._bundles.log_target(record),
            size=self._bundles.console_size(record),
            runtime=bundle.runtime,
            checkpoint=checkpoint,
        )

    def _joined_attachment(self, container: Container) -> Attachment | None:
        """Return the network of the container this one shares it with."""
        kind, _, ref = container.record.network_mode.partition(":")
        if kind != "container":
            return None
        other = self._core.table.resolve(ref)
        if not other.record.state.running or other.record.attachment is None:
            raise ConflictError(f"cannot join network of a non running container: {other.id}")
        container.record.hosts_owner = other.record.hosts_owner or other.id
        if container.record.identities is None:  # root of the host in it, not of that container
            return replace(other.record.attachment, userns_path=None)
        return other.record.attachment

    async def _attach_network(self, container: Container, joined: Attachment | None) -> Attachment:
        users = users_of(self._core, container.record)
        while True:
            try:
                attachment = await self._core.threads.run_network(
                    self._bundles.attach_network, container.record, joined, users.key
                )
            except NoReadyNamespaceError:
                await self._stock.offer_one(users)
            else:
                self._stock.refill()
                return attachment

    def _note_start(self, container: Container, started: Started) -> None:
        state = container.record.state
        state.running, state.paused, state.restarting = True, False, False
        state.pid, state.start_ticks = started.pid, started.start_ticks
        state.boot_id = self._core.boot_id
        state.started_at_ns, state.finished_at_ns = started.started_at_ns, state.finished_at_ns
        state.exit_code, state.error, state.oom_killed = 0, "", False
        container.run_started_s = self._core.clock.monotonic_s()
        has_check = has_health_check(container.record.config)
        state.health = HealthRecord() if has_check else None
        for warning in started.warnings:
            log.warning("container %s: %s", container.id, warning)

    async def _note_failure(self, container: Container, message: str, exit_code: int) -> None:
        state = container.record.state
        state.running = state.restarting = False
        state.pid = 0
        state.exit_code, state.error = exit_code, message
        self.release(container)
        with contextlib.suppress(UnavailableError):  # then its attachments died with it
            await self._core.shim.client.detach(container.id)
        if not container.record.auto_remove:
            await self._core.state.put(container.record)

    async def _give_back(self, record: ContainerRecord) -> None:
        try:
            await self._core.threads.run_network(self._core.network.release, record.id)
        except (CaisError, OSError) as exc:
            log.warning("network of container %s: %s", record.id, exc)
        if not (record.auto_remove or record.state.removing):  # those go altogether
            await self._core.threads.run(tidy, self._core, record.id)

    def _announce_network(self, container: Container, attachment: Attachment, action: str) -> None:
        endpoint = attachment.endpoint
        if endpoint is not None:
            name = endpoint.network_name
            self._core.events.publish(
                "network",
                action,
                endpoint.network_id,
                {"container": container.id, "name": name, "type": name},
            )


def launch_failure(exc: CaisError | OSError) -> tuple[Exception, int]:
    """Put Docker's words around why a start failed; return that and the container's exit code.

    The docker CLI reads 127 and 126 out of the text. What the engine itself refused stays as it is.
    """
    if isinstance(exc, OSError):
        return ContainerLaunchError(f"{_CREATE_PREFIX}{exc}"), UNKNOWN_FAILURE
    if not isinstance(exc, LaunchError):
        return exc, UNKNOWN_FAILURE
    if exc.kind == "user":  # looked up by Docker's daemon, not by its runtime
        return ContainerLaunchError(exc.message), UNKNOWN_FAILURE
    text = f"{_CREATE_PREFIX}{exc.message}: unknown"
    if exc.kind == "not-found":
        return CommandLaunchError(text, 127), 127
    if exc.kind == "not-permitted":
        return CommandLaunchError(text, 126), 126
    if exc.errno == errno.ENOTDIR:
        text += (
            ": Are you trying to mount a directory onto a file (or vice-versa)? "
            "Check if the specified host path exists and is the expected type"
        )
        return CommandLaunchError(text, 126), 126
    return ContainerLaunchError(text), UNKNOWN_FAILURE
