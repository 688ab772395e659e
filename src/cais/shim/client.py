"""The engine's side of the shim protocol: a verb for each request.

Every request may raise the ``cais.errors`` class the shim names, with its text, or
``UnavailableError`` when the shim is gone. Cancelling one forgets its answer, never undoes it.

Spec: docs/architecture.md 3.3.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Self

from cais import errors
from cais.shim import launcher, protocol
from cais.shim.exchange import Exchange
from cais.shim.values import LogTarget, OciRuntime, ShimEvent, ShimHello, Started, read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cais.shim.values import NamespaceOwner

    StrPath = str | os.PathLike[str]


class ShimClient:
    """One connection to the shim of a data root. Made by ``ensure_shim`` or ``connect``."""

    hello: ShimHello

    def __init__(self, channel: socket.socket, on_event: Callable[[ShimEvent], None]) -> None:
        self._exchange = Exchange(channel, lambda packet: on_event(read_event(packet)))

    @classmethod
    async def connect(cls, socket_path: StrPath, *, on_event: Callable[[ShimEvent], None]) -> Self:
        """Connect and say hello.

        Args:
            socket_path: any length; it is reached through its directory's descriptor.
            on_event: called in the event loop, in the order of the events; must not block.
                Exits listed in ``hello`` are not passed to it.

        Raises:
            UnavailableError: nobody listens there, or a shim of another version.

        """
        channel = protocol.connect(os.fspath(socket_path))
        client = cls(channel, on_event)
        try:
            answer = await client._request("hello", version=protocol.VERSION)
            client.hello = ShimHello.read(answer)
        except BaseException:
            client.close()
            raise
        return client

    async def start(
        self,
        id: str,  # noqa: A002 - the protocol's own word
        *,
        bundle: StrPath,
        tty: bool,
        open_stdin: bool,
        stdin_once: bool,
        log: LogTarget | None,
        size: tuple[int, int] | None = None,
        runtime: OciRuntime | None = None,
        checkpoint: StrPath | None = None,
    ) -> Started:
        """Start the container of ``bundle``; return once its program has been executed.

        On failure nothing of it is left, and attachments made before are closed.

        Args:
            id: not running here; an unacknowledged exit of an earlier run is no hindrance.
            bundle: holds ``config.json`` and ``cais.json``.
            tty: as ``process.terminal`` in the bundle says.
            open_stdin: without it the program reads /dev/null.
            stdin_once: close the program's stdin when the first stdin client goes away.
            log: None for no log.
            size: rows and columns of the terminal at the start.
            runtime: None for our own.
            checkpoint: a directory ``checkpoint`` has written, to go on from.

        Raises:
            ConflictError: it is running already.
            CaisError: what the runtime says, Docker's texts included.

        """
        answer = await self._request(
            "start",
            id=id,
            bundle=os.fspath(bundle),
            tty=tty,
            open_stdin=open_stdin,
            stdin_once=stdin_once,
            log=None if log is None else log.document(),
            size=size,
            runtime=None if runtime is None else runtime.document(),
            checkpoint=None if checkpoint is None else os.fspath(checkpoint),
        )
        return Started.read(answer)

    async def exec(
        self,
        id: str,  # noqa: A002
        exec_id: str,
        *,
        document: StrPath,
        tty: bool,
        open_stdin: bool,
        size: tuple[int, int] | None = None,
    ) -> Started:
        """Run one more process in a container; its end comes as an ExitEvent with ``exec_id``.

        Raises:
            NotFoundError: no such container here.
            ConflictError: it is paused, or still starting.

        """
        answer = await self._request(
            "exec",
            id=id,
            exec_id=exec_id,
            document=os.fspath(document),
            tty=tty,
            open_stdin=open_stdin,
            size=size,
        )
        return Started.read(answer)

    async def attach(
        self,
        id: str,  # noqa: A002
        exec_id: str | None = None,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> socket.socket:
        """Attach to a container or exec, also before it starts.

        While the exit of an earlier run is unacknowledged the socket ends at once: whoever attaches
        then was too late for that run.

        Returns:
            Our end of a stream socket pair, non-blocking; the caller closes it. Reading gives raw
            bytes with ``tty``, stdcopy frames without, and ends after the last byte; writing (with
            ``stdin``) feeds the program; ``shutdown(SHUT_WR)`` is the end of its input.

        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.settimeout(0)
        try:
            with theirs:
                await self._request(
                    "attach",
                    [theirs],
                    id=id,
                    exec_id=exec_id,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    tty=tty,
                )
        except BaseException:
            ours.close()
            raise
        return ours

    async def detach(self, id: str, exec_id: str | None = None) -> None:  # noqa: A002
        """Close the attachments waiting for a start that will not happen. Idempotent."""
        await self._request("detach", id=id, exec_id=exec_id)

    async def resize(
        self,
        id: str,  # noqa: A002
        exec_id: str | None = None,
        *,
        height: int,
        width: int,
    ) -> None:
        """Set the terminal's size. ConflictError without a terminal, NotFoundError if not here."""
        await self._request("resize", id=id, exec_id=exec_id, height=height, width=width)

    async def kill(
        self,
        id: str,  # noqa: A002
        signal: int,
        *,
        exec_id: str | None = None,
        everything: bool = False,
    ) -> None:
        """Signal a container's first process, an exec, or with ``everything`` all its processes.

        NotFoundError when it has ended.
        """
        await self._request("kill", id=id, exec_id=exec_id, signal=int(signal), all=everything)

    async def pause(self, id: str) -> None:  # noqa: A002
        """Freeze all processes. ConflictError if it is paused."""
        await self._request("pause", id=id)

    async def resume(self, id: str) -> None:  # noqa: A002
        """Let a paused container run on. ConflictError if it is not paused."""
        await self._request("resume", id=id)

    async def update(self, id: str, resources: Mapping[str, Any]) -> None:  # noqa: A002
        """Change limits of a running container; ``resources`` is OCI ``linux.resources``."""
        await self._request("update", id=id, resources=resources)

    async def checkpoint(
        self,
        id: str,  # noqa: A002
        *,
        directory: StrPath,
        leave_running: bool,
    ) -> None:
        """Write the container's processes into ``directory``; they end unless ``leave_running``.

        UnsupportedError: the container's runtime cannot.
        """
        await self._request(
            "checkpoint", id=id, directory=os.fspath(directory), leave_running=leave_running
        )

    async def ack(self, exit_seqs: Iterable[int]) -> None:
        """Say that these exits are recorded; the shim forgets them. Idempotent."""
        sequence = list(exit_seqs)
        for start in range(0, len(sequence), 1000):
            await self._request("ack", exits=sequence[start : start + 1000])

    async def adopt(
        self,
        id: str,  # noqa: A002
        *,
        pid: int,
        start_ticks: int,
        bundle: StrPath,
        paused: bool,
        runtime: OciRuntime | None = None,
    ) -> None:
        """Watch a container whose shim died; its streams and log died with that shim.

        ``paused`` is how that shim left it, and decides which of ``pause`` and ``resume`` it takes.
        NotFoundError if that process is no more: nobody knows its exit code then.
        """
        await self._request(
            "adopt",
            id=id,
            pid=pid,
            start_ticks=start_ticks,
            bundle=os.fspath(bundle),
            paused=paused,
            runtime=None if runtime is None else runtime.document(),
        )

    async def create_netns(
        self, path: StrPath, owner: NamespaceOwner | None = None
    ) -> tuple[int, int]:
        """Make a network namespace pinned at ``path``, which must not exist.

        Args:
            path: where nothing may be yet.
            owner: the user namespace it belongs to; None: the host's.

        Returns:
            Descriptors of the namespace and of a NETLINK_ROUTE socket inside it; the caller closes
            both. Nothing in it is up.

        """
        asked = None if owner is None else owner.document()
        fds = await self._request_fds("netns", 2, path=os.fspath(path), owner=asked)
        netns_fd, netlink_fd = fds
        return netns_fd, netlink_fd

    async def open_netlink(self, path: StrPath) -> int:
        """Return a NETLINK_ROUTE socket inside the namespace pinned at ``path``; caller closes."""
        (netlink_fd,) = await self._request_fds("netlink", 1, path=os.fspath(path))
        return netlink_fd

    async def shutdown(self) -> None:
        """End the shim. ConflictError while it holds a container."""
        await self._request("shutdown")

    async def wait_lost(self) -> None:
        """Return when the connection is gone, by ``close`` or because the shim ended."""
        await self._exchange.wait_lost()

    def close(self) -> None:
        """Close the connection; requests under way fail. Containers are not touched. Idempotent."""
        self._exchange.close()

    async def _request(
        self, verb: str, fds: Sequence[socket.socket] = (), **fields: object
    ) -> dict[str, Any]:
        answer, received = await self._exchange.ask(verb, fields, fds)
        protocol.close_all(received)
        return answer

    async def _request_fds(self, verb: str, count: int, **fields: object) -> list[int]:
        _, received = await self._exchange.ask(verb, fields)
        if len(received) != count:
            protocol.close_all(received)
            raise errors.InternalError(f"shim answered {verb} with {len(received)} descriptors")
        return received


async def ensure_shim(
    data_root: StrPath,
    exec_root: StrPath,
    *,
    on_event: Callable[[ShimEvent], None],
    timeout_s: float = launcher.START_TIMEOUT_S,
) -> ShimClient:
    """Connect to the shim of ``data_root``, starting a sealed one first if none answers.

    Args:
        data_root: holds the lock that makes the shim the only one.
        exec_root: holds its socket, log and bundles; made 0700 if missing.
        on_event: as ``ShimClient.connect``.
        timeout_s: how long a new shim may take to listen.

    Raises:
        UnavailableError: it did not start; the text says why (the end of its log).
        ConflictError: a shim of this data root runs with another exec root.

    """
    path = os.path.join(os.fspath(exec_root), protocol.SOCKET_NAME)
    try:
        return await ShimClient.connect(path, on_event=on_event)
    except protocol.PeerGoneError:
        await asyncio.to_thread(
            launcher.launch, os.fspath(data_root), os.fspath(exec_root), timeout_s=timeout_s
        )
    return await ShimClient.connect(path, on_event=on_event)
